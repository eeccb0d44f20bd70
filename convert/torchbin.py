"""``pytorch_model.bin``: what ``torch.save`` writes of a state dict, since 1.6 (a zip archive) and before. Read lazily,
and without executing anything (see ``unpickle``).

Formats: torch/serialization.py. Archive: ``<root>/data.pkl``, the pickled dict whose storages are persistent ids, and
one stored member ``<root>/data/<key>`` for each. Before 1.6: five pickles (magic number, protocol, platform, the dict,
the keys of the storages), then for each key a u64 count and the elements.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import archive
from .archive import Span
from .errors import BadCheckpoint
from .tensor import ITEM_BYTES, MAX_DIMENSIONS, MAX_TENSORS, Tensor, map_file
from .unpickle import Name, Pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MOST = 1 << 48

STORAGES: Mapping[str, str] = {
    "torch.DoubleStorage": "F64", "torch.FloatStorage": "F32", "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16", "torch.LongStorage": "I64", "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16", "torch.CharStorage": "I8", "torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64", "torch.storage.UntypedStorage": "U8",
}  # fmt: skip
# Element types newer than typed storages: the tensor names them, its storage is of bytes.
DTYPES: Mapping[str, str] = {
    "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2", "torch.float8_e8m0fnu": "F8_E8M0",
    "torch.uint16": "U16", "torch.uint32": "U32", "torch.uint64": "U64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Storage:
    """Elements that one or several tensors are views of."""

    key: str
    dtype: str
    length: int

    @property
    def nbytes(self) -> int:
        return self.length * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as the pickle describes it; ``offset`` and ``strides`` count elements of ``dtype``."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, by name.

    Raises:
        BadCheckpoint: the file holds anything but tensors, is no archive of ``torch.save``, is a TorchScript program,
            or has a tensor outside its storage.
    """
    buffer, size = map_file(path, least_bytes=4)
    if buffer[:4] == b"PK\3\4":
        return _read_archive(path, buffer, size)
    return _read_legacy(path, buffer, size)


def _read_archive(path: Path, buffer: mmap.mmap, size: int) -> dict[str, Tensor]:
    members = archive.members(path, buffer, size)
    roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise _broken(path, "it has no data.pkl")
    root = roots[0]
    if any(name.startswith((f"{root}/code/", f"{root}/constants.pkl")) for name in members):
        raise _broken(path, "it is a TorchScript program")
    order = members.get(f"{root}/byteorder")
    if order is not None and buffer[order.offset : order.offset + min(order.nbytes, 8)] != b"little":
        raise _broken(path, "its numbers are not little-endian")
    span = members[f"{root}/data.pkl"]
    state = _pickle(path, buffer, span.offset, span.offset + span.nbytes).load()
    prefix = f"{root}/data/"
    places = {name.removeprefix(prefix): span for name, span in members.items() if name.startswith(prefix)}
    return _tensors(path, buffer, state, places)


def _read_legacy(path: Path, buffer: mmap.mmap, size: int) -> dict[str, Tensor]:
    position = 0
    values = []
    for _ in range(5):
        pickle = _pickle(path, buffer, position, size)
        values.append(pickle.load())
        position = pickle.position
        if values[0] != LEGACY_MAGIC:
            raise pickle.broken("it does not begin as torch.save does")
    _, protocol, platform, state, keys = values
    if protocol != LEGACY_PROTOCOL or not isinstance(platform, dict) or platform.get("little_endian") is not True:
        raise _broken(path, "it is of another protocol, or its numbers are not little-endian")
    if not isinstance(keys, list) or len(keys) > MAX_TENSORS or not all(isinstance(key, str) for key in keys):
        raise _broken(path, "its list of storages is no list of keys")
    storages = {view.storage.key: view.storage for view in _views(path, state).values()}
    return _tensors(path, buffer, state, _legacy_places(path, buffer, position, size, keys, storages))


def _legacy_places(
    path: Path, buffer: mmap.mmap, position: int, size: int, keys: Iterable[str], storages: Mapping[str, Storage]
) -> dict[str, Span]:
    """Where each storage lies: they follow each other in the order of ``keys`` and end with the file."""
    places: dict[str, Span] = {}
    for key in keys:
        storage = storages.get(key)
        if storage is None or key in places:
            raise _broken(path, f"storage {key[:80]!r} belongs to no tensor, or occurs twice")
        count = int.from_bytes(buffer[position : position + 8], "little")
        position += 8
        if count != storage.length or position + storage.nbytes > size:
            raise _broken(path, f"storage {key[:80]!r} has {count:,} elements of {storage.length:,}, or is cut off")
        places[key] = Span(position, storage.nbytes)
        position += storage.nbytes
    if position != size:
        raise _broken(path, f"its storages end at byte {position:,} of {size:,}")
    return places


def _pickle(path: Path, buffer: mmap.mmap, position: int, end: int) -> Pickle:
    calls = {
        "collections.OrderedDict": _ordered_dict,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
        "torch._utils._rebuild_parameter": _parameter,
    }
    names = frozenset(STORAGES.keys() | DTYPES.keys())
    return Pickle(buffer, position, end, str(path), calls=calls, names=names, persistent=_storage)


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any] | None:
    """``OrderedDict()``; its entries are set afterwards."""
    return None if arguments else {}


def _storage(identity: tuple[Any, ...]) -> Storage | None:
    """("storage", its class, key, device, number of elements), and before 1.6 None: it is not part of another."""
    match identity:
        case ("storage", Name(kind), str(key), str(), int(length)) | (
            "storage",
            Name(kind),
            str(key),
            str(),
            int(length),
            None,
        ):
            return Storage(key, STORAGES[kind], length) if kind in STORAGES and 0 <= length <= MOST else None
    return None


def _tensor(arguments: tuple[Any, ...]) -> View | None:
    """(storage, offset, shape, strides), and what says nothing about values: gradients, hooks."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            return _view(storage, storage.dtype, offset, shape, strides)
    return None


def _tensor_of_dtype(arguments: tuple[Any, ...]) -> View | None:
    """(storage of bytes, offset, shape, strides, gradient, hooks, element type)."""
    match arguments:
        case (Storage(dtype="U8") as storage, int(offset), tuple(shape), tuple(strides), _, _, Name(dtype), *_):
            return _view(storage, DTYPES[dtype], offset, shape, strides) if dtype in DTYPES else None
    return None


def _parameter(arguments: tuple[Any, ...]) -> View | None:
    """(tensor, gradient, hooks)."""
    match arguments:
        case (View() as view, *_):
            return view
    return None


def _view(storage: Storage, dtype: str, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> View | None:
    """A tensor whose every element lies in its storage, and that is not larger than it."""
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        return None
    if not all(type(number) is int and 0 <= number <= MOST for number in numbers):
        return None
    count = math.prod(shape)
    reach = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + 1 if count else 0
    item = ITEM_BYTES[dtype]
    if (offset + reach) * item > storage.nbytes or count * item > storage.nbytes:
        return None
    return View(storage, dtype, offset, shape, strides)


def _views(path: Path, state: Any) -> dict[str, View]:
    if not isinstance(state, dict) or not state:
        raise _broken(path, f"it holds a {type(state).__name__}, not a dict of tensors")
    if len(state) > MAX_TENSORS:
        raise _broken(path, f"it names {len(state):,} tensors, and at most {MAX_TENSORS:,} are allowed")
    for name, view in state.items():
        if not isinstance(view, View):
            raise _broken(path, f"entry {name[:100]!r} is a {type(view).__name__}, not a tensor")
    return state


def _tensors(path: Path, buffer: mmap.mmap, state: Any, places: Mapping[str, Span]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, view in _views(path, state).items():
        storage = view.storage
        place = places.get(storage.key)
        if place is None or place.nbytes != storage.nbytes:
            raise _broken(path, f"the storage of tensor {name[:100]!r} is missing, or has not {storage.nbytes:,} bytes")
        item = ITEM_BYTES[view.dtype]
        strides = tuple(stride * item for stride in view.strides)
        offset = place.offset + view.offset * item
        tensors[name] = Tensor(name, view.dtype, view.shape, offset, path, buffer, strides)
    return tensors


def _broken(path: Path, rule: str) -> BadCheckpoint:
    return BadCheckpoint(
        f"{path} is not a plain state dict of torch.save: {rule}",
        hint="nothing of it was executed; take a checkpoint with safetensors, or download the file again",
    )
