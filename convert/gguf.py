"""Reader and writer of GGUF, the file format of llama.cpp (versions 2 and 3, little-endian).

The format: ``magic version n_tensors n_kv``, the key-value pairs, one record per tensor, padding, then the tensors'
bytes, each padded to ``general.alignment``. Specification: docs/gguf.md of the ggml project.

A file is untrusted input: every length is compared with the bytes that are left before anything is allocated, and
whatever is wrong raises :class:`BadGGUF` naming the file, the byte offset and the rule.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .cursor import Cursor, map_file
from .errors import BadGGUF
from .ggml import BY_ID, GGMLType
from .progress import Progress, silent

Value = bool | int | float | str | np.generic | NDArray[Any] | list[str]
"""A metadata value. ``int`` is stored as u32 and ``float`` as f32, which is what llama.cpp reads nearly everywhere;
any other width is a numpy scalar (``np.int32(-1)``, ``np.uint64(n)``). Arrays are numpy arrays (their dtype is the
element type) or ``list[str]``. What is read compares equal to what was written, and writes the same bytes again."""

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"

MAX_PAIRS = 4_096
MAX_TENSORS = 131_072
MAX_ARRAY_LENGTH = 4 << 20
MAX_KEY_BYTES = 65_535
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_DIMENSION = 1 << 40
MAX_ELEMENTS = 1 << 44
MIN_PAIR_BYTES = 8 + 1 + 4 + 1
MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8

BOOL, STRING, ARRAY, U32, F32 = 7, 8, 9, 4, 6
SCALARS: Mapping[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
SCALAR_IDS: Mapping[np.dtype[Any], int] = {dtype: type_id for type_id, dtype in SCALARS.items()}
# bf16 has no numpy type: its bits are seen as u16. Block types are seen as rows of bytes.
ELEMENTS: Mapping[str, str] = {
    "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I8": "<i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
}  # fmt: skip

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor of a file. ``shape`` is slowest dimension first (ggml's ``ne`` reversed); ``offset`` is absolute."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int

    @property
    def nbytes(self) -> int:
        return self.type.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written. ``chunks()`` yields its bytes in order, as arrays of any shape; it is called once."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    chunks: Callable[[], Iterable[NDArray[Any]]] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return self.type.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class GGUF:
    """An open file: its metadata in memory, its tensors memory-mapped."""

    path: Path
    version: int
    alignment: int
    size_bytes: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    _map: mmap.mmap = field(repr=False, compare=False)

    def tensor(self, name: str) -> NDArray[Any]:
        """The values of a tensor, read-only, backed by the file.

        Shape ``info.shape`` for plain types (bf16 as u16 bits); ``(..., row bytes)`` of u8 for block types.

        Raises:
            BadGGUF: there is no tensor of that name.
        """
        info = self.tensors.get(name)
        if info is None:
            raise BadGGUF(f"{self.path} has no tensor {name!r}")
        element = ELEMENTS.get(info.type.name)
        if element is not None:
            return np.frombuffer(self._map, element, math.prod(info.shape), info.offset).reshape(info.shape)
        rows = np.frombuffer(self._map, np.uint8, info.nbytes, info.offset)
        return rows.reshape(*info.shape[:-1], info.type.row_bytes(info.shape[-1]))


def read(path: Path) -> GGUF:
    """Open and check a file; no tensor is read.

    Raises:
        BadGGUF: not a regular file, or anything in it breaks the format.
    """
    cursor = Cursor(path, *map_file(path))
    if cursor.take(4, "the magic") != MAGIC:
        cursor.fail("it does not begin with 'GGUF'", at=0)
    version = cursor.u32("the version")
    if version not in (2, 3):
        cursor.fail(f"version {version} is not supported (2 and 3 are; a big-endian file is not)", at=4)
    num_tensors = cursor.count("tensors", MAX_TENSORS, MIN_TENSOR_BYTES)
    num_pairs = cursor.count("key-value pairs", MAX_PAIRS, MIN_PAIR_BYTES)
    metadata = _read_pairs(cursor, num_pairs)
    alignment = _alignment(cursor, metadata)
    tensors = _read_tensors(cursor, num_tensors, alignment)
    return GGUF(path, version, alignment, cursor.size, metadata, tensors, cursor.buffer)


def write(
    path: Path, metadata: Mapping[str, Value], tensors: Iterable[TensorPlan], progress: Progress = silent
) -> None:
    """Write a file. The same input gives the same bytes. Not atomic: pass a path from ``files.appearing``.

    Raises:
        BadGGUF: the input cannot be expressed in the format, or a plan yields other than its announced bytes.
    """
    plans = tuple(tensors)
    alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
    if not isinstance(alignment, int) or not _is_alignment(alignment):
        raise BadGGUF(f"{ALIGNMENT_KEY} must be a power of two from 8 to 65,536, not {alignment!r}")
    head = header(metadata, plans, alignment)
    total = len(head) + sum(padded(plan.nbytes, alignment) for plan in plans)
    with path.open("wb") as out:
        out.write(head)
        for plan in plans:
            _write_tensor(out, plan, alignment, progress, total)


def rewrite(path: Path, metadata: Mapping[str, Value], tensors: Iterable[TensorPlan]) -> None:
    """Change the metadata of a file, to values that take as many bytes; its ``tensors`` stay.

    Raises:
        BadGGUF: the header would have another size.
    """
    head = header(metadata, tensors)
    if len(head) != min(info.offset for info in read(path).tensors.values()):
        raise BadGGUF(f"the new metadata of {path} do not take the place of the old")
    with path.open("r+b") as out:
        out.write(head)


def outline(path: Path, metadata: Mapping[str, Value], tensors: Iterable[TensorPlan]) -> None:
    """A file as :func:`write` would write it, with a hole in place of the tensors: it takes no space, and says nothing.

    Raises:
        BadGGUF: a value or tensor that the format cannot hold.
    """
    plans = tuple(tensors)
    head = header(metadata, plans)
    path.write_bytes(head)
    os.truncate(path, len(head) + sum(padded(plan.nbytes) for plan in plans))


def header(metadata: Mapping[str, Value], plans: Iterable[TensorPlan], alignment: int = ALIGNMENT) -> bytes:
    """All bytes before the first tensor's, padded. Raises :class:`BadGGUF` for what the format cannot hold."""
    plans = tuple(plans)
    names = [plan.name for plan in plans]
    if len(set(names)) < len(names):
        raise BadGGUF(f"tensor {next(name for name in names if names.count(name) > 1)!r} is planned twice")
    parts = [MAGIC, _U32.pack(VERSION), _U64.pack(len(plans)), _U64.pack(len(metadata))]
    for key, value in metadata.items():
        parts += (_encode_string(key), _encode(key, value))
    offset = 0
    for plan in plans:
        parts.append(_encode_info(plan, offset))
        offset += padded(plan.nbytes, alignment)
    head = b"".join(parts)
    return head.ljust(padded(len(head), alignment), b"\0")


def _read_pairs(cursor: Cursor, number: int) -> dict[str, Value]:
    pairs: dict[str, Value] = {}
    for _ in range(number):
        start = cursor.position
        key = cursor.string("a key", MAX_KEY_BYTES)
        if not key or key in pairs:
            cursor.fail(f"key {key!r} occurs twice" if key else "a key is empty", at=start)
        pairs[key] = _read_value(cursor, key, cursor.u32(f"the type of {key!r}"))
    return pairs


def _read_value(cursor: Cursor, key: str, type_id: int) -> Value:
    if type_id == STRING:
        return cursor.string(f"the value of {key!r}")
    if type_id == ARRAY:
        return _read_array(cursor, key)
    value = _read_numbers(cursor, key, type_id, 1)[0]
    return value.item() if type_id in (BOOL, U32, F32) else value  # type: ignore[no-any-return]


def _read_array(cursor: Cursor, key: str) -> Value:
    type_id = cursor.u32(f"the element type of {key!r}")
    if type_id == STRING:
        return cursor.strings(cursor.count(f"elements of {key!r}", MAX_ARRAY_LENGTH, 8), repr(key))
    return _read_numbers(cursor, key, type_id, cursor.count(f"elements of {key!r}", MAX_ARRAY_LENGTH, 1))


def _read_numbers(cursor: Cursor, key: str, type_id: int, number: int) -> NDArray[Any]:
    dtype = SCALARS.get(type_id)
    if dtype is None:
        cursor.fail(f"{key!r} has the unknown value type {type_id}", at=cursor.position - 4)
    data = cursor.take(number * dtype.itemsize, f"the value of {key!r}")
    if type_id == BOOL and data.strip(b"\0\1"):
        cursor.fail(f"{key!r} is a boolean that is neither 0 nor 1")
    return np.frombuffer(data, dtype)


def _alignment(cursor: Cursor, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
    if not isinstance(alignment, int) or not _is_alignment(alignment):
        cursor.fail(f"{ALIGNMENT_KEY} is {alignment!r}, not a power of two from 8 to 65,536")
    return alignment


def _is_alignment(value: int) -> bool:
    return 8 <= value <= 65_536 and value & (value - 1) == 0


def _read_tensors(cursor: Cursor, number: int, alignment: int) -> dict[str, TensorInfo]:
    """The tensor records, with offsets made absolute; each must begin where the one before it ends, padded."""
    tensors: dict[str, TensorInfo] = {}
    expected = 0
    for _ in range(number):
        start = cursor.position
        info = _read_info(cursor)
        if info.name in tensors:
            cursor.fail(f"tensor {info.name!r} occurs twice", at=start)
        if info.offset != expected:
            cursor.fail(f"tensor {info.name!r} has offset {info.offset:,}, and {expected:,} was expected", at=start)
        expected += padded(info.nbytes, alignment)
        tensors[info.name] = info
    base = padded(cursor.position, alignment)
    for name, info in tensors.items():
        if base + info.offset + info.nbytes > cursor.size:
            cursor.fail(f"tensor {name!r} ends at byte {base + info.offset + info.nbytes:,} of {cursor.size:,}")
        tensors[name] = TensorInfo(name, info.shape, info.type, base + info.offset)
    return tensors


def _read_info(cursor: Cursor) -> TensorInfo:
    start = cursor.position
    name = cursor.string("a tensor name", MAX_TENSOR_NAME_BYTES)
    num_dimensions = cursor.u32(f"the dimensions of {name!r}")
    if not name or not 1 <= num_dimensions <= MAX_DIMENSIONS:
        cursor.fail(f"tensor {name!r} has {num_dimensions} dimensions" if name else "a tensor has no name", at=start)
    shape = tuple(cursor.u64(f"the shape of {name!r}") for _ in range(num_dimensions))[::-1]
    if not all(1 <= length <= MAX_DIMENSION for length in shape) or math.prod(shape) > MAX_ELEMENTS:
        cursor.fail(f"tensor {name!r} has the impossible shape {shape}", at=start)
    type_id = cursor.u32(f"the type of {name!r}")
    element = BY_ID.get(type_id)
    if element is None:
        cursor.fail(f"tensor {name!r} has the unknown type {type_id}", at=start)
    if shape[-1] % element.block:
        cursor.fail(
            f"tensor {name!r} has rows of {shape[-1]}, not a multiple of {element.name}'s {element.block}", at=start
        )
    return TensorInfo(name, shape, element, cursor.u64(f"the offset of {name!r}"))


def padded(length: int, alignment: int = ALIGNMENT) -> int:
    """``length`` rounded up to the alignment."""
    return -(-length // alignment) * alignment


def _write_tensor(out: BinaryIO, plan: TensorPlan, alignment: int, progress: Progress, total: int) -> None:
    start = out.tell()
    for chunk in plan.chunks():
        out.write(np.ascontiguousarray(chunk).data)
        progress("write", out.tell(), total)
    written = out.tell() - start
    if written != plan.nbytes:
        raise BadGGUF(f"tensor {plan.name!r} was announced with {plan.nbytes:,} bytes and has {written:,}")
    out.write(bytes(padded(written, alignment) - written))


def _encode_string(text: str) -> bytes:
    data = text.encode()
    return _U64.pack(len(data)) + data


def _encode_info(plan: TensorPlan, offset: int) -> bytes:
    if not 1 <= len(plan.name.encode()) <= MAX_TENSOR_NAME_BYTES:
        raise BadGGUF(f"tensor name {plan.name!r} is not 1 to {MAX_TENSOR_NAME_BYTES} bytes long")
    if not 1 <= len(plan.shape) <= MAX_DIMENSIONS or plan.shape[-1] % plan.type.block:
        raise BadGGUF(f"tensor {plan.name!r} of shape {plan.shape} cannot be stored as {plan.type.name}")
    record = struct.pack(f"<I{len(plan.shape)}QIQ", len(plan.shape), *plan.shape[::-1], plan.type.id, offset)
    return _encode_string(plan.name) + record


def _encode(key: str, value: Value) -> bytes:
    """Type and bytes of a metadata value."""
    if isinstance(value, str):
        return _U32.pack(STRING) + _encode_string(value)
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_encode_string, value))
    if isinstance(value, np.ndarray):
        return struct.pack("<IIQ", ARRAY, _scalar_id(key, value.dtype), value.size) + value.tobytes()
    scalar = _scalar(key, value)
    return _U32.pack(_scalar_id(key, scalar.dtype)) + scalar.tobytes()


def _scalar(key: str, value: bool | int | float | np.generic) -> np.generic:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise BadGGUF(f"{key!r} cannot be {value!r}: an int is stored as u32; use a numpy scalar for another width")
    return np.uint32(value)


def _scalar_id(key: str, dtype: np.dtype[Any]) -> int:
    type_id = SCALAR_IDS.get(dtype.newbyteorder("<"))
    if type_id is None or dtype.byteorder == ">":
        raise BadGGUF(f"{key!r} cannot be stored: the format has no element type {dtype}")
    return type_id
