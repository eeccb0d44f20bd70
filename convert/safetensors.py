"""The safetensors format: a JSON header, then the tensors' bytes. Read lazily; nothing in the header is trusted.

Format: u64 length of the header, the header ``{name: {dtype, shape, data_offsets}}``, the bytes without holes.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BadCheckpoint
from .jsonfile import count_values
from .tensor import ITEM_BYTES, MAX_DIMENSIONS, MAX_ELEMENTS, MAX_TENSORS, Tensor, map_file

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 32 << 20
MAX_VALUES = 1_500_000
MAX_METADATA_BYTES = 1 << 20
MOST_SHOWN = 300
METADATA = "__metadata__"


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises:
        BadCheckpoint: the header is not JSON of the described form, names a tensor twice, or its spans overlap, leave
            a hole, or do not fill the file exactly.
    """
    buffer, size = map_file(path, LENGTH_BYTES)
    length = int.from_bytes(buffer[:8], "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise _broken(path, f"its header claims {length:,} bytes of a file of {size:,}")
    header = _parse(path, buffer[8 : 8 + length])
    _check_metadata(path, header.pop(METADATA, {}))
    if len(header) > MAX_TENSORS:
        raise _broken(path, f"it names {len(header):,} tensors, and at most {MAX_TENSORS:,} are allowed")
    tensors = {name: _tensor(path, name, entry, 8 + length, buffer) for name, entry in header.items()}
    _check_spans(path, tensors, 8 + length, size)
    return tensors


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    if (values := count_values(data)) > MAX_VALUES:
        raise _broken(path, f"its header has {values:,} values, and at most {MAX_VALUES:,} are allowed")
    try:
        header = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is not sound JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return dict(pairs)


def _check_metadata(path: Path, metadata: Any) -> None:
    sound = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if not sound or sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA_BYTES:
        raise _broken(path, f"{METADATA} is not a small object of strings")


def _tensor(path: Path, name: str, entry: Any, base: int, buffer: mmap.mmap) -> Tensor:
    """Check one header entry: known dtype, sane shape, and a span of exactly the bytes the shape needs."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"the entry of tensor {name!r} is not {{dtype, shape, data_offsets}}")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise _broken(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS or math.prod(shape) > MAX_ELEMENTS:
        raise _broken(path, f"tensor {name!r} has the impossible shape {shape!r}")
    if not _naturals(span) or len(span) != 2:
        raise _broken(path, f"tensor {name!r} has the impossible offsets {span!r}")
    if span[1] - span[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise _broken(path, f"tensor {name!r} of shape {shape} and {dtype} cannot span the bytes {span}")
    return Tensor(name, dtype, tuple(shape), base + span[0], path, buffer)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_spans(path: Path, tensors: Mapping[str, Tensor], base: int, size: int) -> None:
    end = base
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            kind = "overlaps another" if tensor.offset < end else "leaves a hole before it"
            raise _broken(path, f"tensor {tensor.name!r} {kind}: it begins at byte {tensor.offset:,}, not {end:,}")
        end += tensor.nbytes
    if end != size:
        raise _broken(path, f"its tensors end at byte {end:,} of {size:,}")


def _broken(path: Path, rule: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is not a sound safetensors file: {rule[:MOST_SHOWN]}", hint="download the file again")
