"""``torch.save`` without torch: state dicts from pieces that a test may also put together wrongly."""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingle.convert.tensor import Tensor
from ingle.convert.torchbin import STORAGES

CLASSES = {dtype: name for name, dtype in STORAGES.items() if "Untyped" not in name}
LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
PLATFORM = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def name(value: str) -> bytes:
    module, _, last = value.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, kind: str, length: int, *more: bytes) -> bytes:
    """The persistent id of a storage."""
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(length) + b"".join(more) + b"tQ"


def view(storage: bytes, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, offset: int = 0) -> bytes:
    """A call of ``_rebuild_tensor_v2``."""
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    hooks = name("collections.OrderedDict") + b")R"
    place = number(offset) + numbers(shape) + numbers(strides)
    return name("torch._utils._rebuild_tensor_v2") + b"(" + storage + place + b"\x89" + hooks + b"tR"


def state(entries: Mapping[str, bytes]) -> bytes:
    """The pickle of a dict."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def archive(pickled: bytes, storages: Mapping[str, bytes], **more: bytes) -> bytes:
    """A file as torch has written it since 1.6."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        file.writestr("root/data.pkl", pickled)
        file.writestr("root/byteorder", b"little")
        file.writestr("root/version", b"3\n")
        for key, data in storages.items():
            file.writestr(f"root/data/{key}", data)
        for key, data in more.items():
            file.writestr(f"root/{key}", data)
    return out.getvalue()


def legacy(pickled: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A file as torch wrote it before; each storage with its number of elements."""
    keys = pickle.dumps(list(storages), 2)
    data = b"".join(struct.pack("<q", length) + data for length, data in storages.values())
    return LEGACY_START + PLATFORM + pickled + keys + data


def save(path: Path, tensors: Mapping[str, Tensor], *, old: bool = False) -> None:
    """Write ``tensors`` of another checkpoint to ``path``."""
    entries: dict[str, bytes] = {}
    data: dict[str, Any] = {}
    for key, (called, tensor) in enumerate(tensors.items()):
        length = math.prod(tensor.shape)
        entries[called] = view(storage(str(key), CLASSES[tensor.dtype], length, *[b"N"] * old), tensor.shape)
        raw = tensor.values.tobytes()
        data[str(key)] = (length, raw) if old else raw
    pickled = state(entries)
    path.write_bytes(legacy(pickled, data) if old else archive(pickled, data))
