"""A tensor of a checkpoint file, not yet read."""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BadCheckpoint

MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 48

# Element type, as safetensors calls it -> how numpy sees it. What has no numpy type is seen as its bits.
ELEMENTS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
    "F8_E8M0": "<u1", "C64": "<c8",
}  # fmt: skip
ITEM_BYTES: Mapping[str, int] = {name: np.dtype(element).itemsize for name, element in ELEMENTS.items()}
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True, slots=True)
class Scale:
    """What the elements of a tensor must be multiplied with: one factor per ``block`` of as many dimensions."""

    factors: Tensor
    block: tuple[int, ...]


Arrive = Callable[[Path], mmap.mmap]
"""Waits until a file of which only the header is here is whole, and maps it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view over a mapped file: ``shape`` elements from byte ``offset`` (absolute), ``strides`` bytes apart.

    strides: None for rows that lie one after the other. scale: None where the elements are the values.
    arrive: None where the whole file is here.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    file: Path
    _map: mmap.mmap = field(repr=False, compare=False)
    strides: tuple[int, ...] | None = None
    scale: Scale | None = None
    arrive: Arrive | None = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def values(self) -> NDArray[Any]:
        """All stored values, backed by the file (bf16 and fp8 as their bits): only what is touched is read."""
        if not math.prod(self.shape):
            return np.empty(self.shape, ELEMENTS[self.dtype])
        return np.ndarray(self.shape, ELEMENTS[self.dtype], self._buffer, self.offset, self.strides)

    def release(self) -> None:
        """Let go of the memory that reading took; the bytes stay in the file."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._buffer.madvise(mmap.MADV_DONTNEED)

    @property
    def _buffer(self) -> mmap.mmap:
        return self._map if self.arrive is None else self.arrive(self.file)


def map_file(path: Path, least_bytes: int) -> tuple[mmap.mmap, int]:
    """A regular file of at least ``least_bytes``, mapped for reading, and its size.

    Raises:
        BadCheckpoint: it cannot be opened, is no regular file (a FIFO is not waited for), or is shorter.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadCheckpoint(f"cannot open {path}: {error.strerror}", hint="download the checkpoint again") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadCheckpoint(f"{path} is not a regular file")
        if status.st_size < least_bytes:
            raise BadCheckpoint(f"{path} has only {status.st_size} bytes", hint="download the file again")
        return mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ), status.st_size
    finally:
        os.close(handle)
