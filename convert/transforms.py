"""Tensors on their way from checkpoint to GGUF, as rows that are read when they are written.

A transform takes a :class:`Rows` and gives another one: nothing is read until :meth:`Rows.read` is called for a range
of rows, so the memory of a conversion is that of a chunk, not of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encode import to_f32
from .safetensors import Tensor

# Of f32 values: small enough for a core's cache, so that the passes over a chunk do not wait for memory.
CHUNK_BYTES = 2 << 20


class Misfit(ValueError):
    """A tensor has a shape that a transform cannot work on."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor that is read in ranges of its first dimension.

    dtype: F64, F32, F16 or BF16, of what ``read(start, stop)`` gives (bf16 as u16 bits), shaped
    ``(stop - start, *shape[1:])``. ``release()`` lets go of the file's memory between two chunks.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[int, int], NDArray[Any]] = field(repr=False, compare=False)
    release: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """All rows in order, about ``CHUNK_BYTES`` at a time."""
        step = max(1, CHUNK_BYTES // (4 * math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], step):
            yield self.read(start, min(start + step, self.shape[0]))
            self.release()


def rows_of(tensor: Tensor) -> Rows:
    """A checkpoint tensor as it is."""
    return Rows(tensor.shape, tensor.dtype, lambda start, stop: tensor.values[start:stop], tensor.release)


def constant(values: NDArray[np.float32]) -> Rows:
    """Values that were computed, not read."""
    return Rows(values.shape, "F32", lambda start, stop: values[start:stop])


def rope_rows(rows: Rows, num_heads: int) -> Rows:
    """Reorder the rows of a query or key projection for llama.cpp's ``llama`` rotary embedding.

    transformers rotates element ``i`` of a head with element ``i + head_dim / 2``; llama.cpp's "norm" kind rotates
    neighbours. Row ``2 i + j`` of a head of the result is row ``j head_dim / 2 + i`` of the source.
    Raises :class:`Misfit` when the rows do not divide into heads of even size.
    """
    if not rows.shape or rows.shape[0] % (2 * num_heads):
        raise Misfit(f"{rows.shape} does not divide into {num_heads} heads of even size")
    source = np.arange(rows.shape[0]).reshape(num_heads, 2, -1).swapaxes(1, 2).ravel()

    def read(start: int, stop: int) -> NDArray[Any]:
        wanted = source[start:stop]
        first, last = int(wanted.min()), int(wanted.max())
        return rows.read(first, last + 1)[wanted - first]

    return replace(rows, read=read)


def transpose(rows: Rows) -> Rows:
    """Swap the two dimensions: GPT-2 keeps its projections as (in, out). Reads the source in strips, once per chunk.

    Raises :class:`Misfit` for a tensor that is no matrix.
    """
    if len(rows.shape) != 2:
        raise Misfit(f"{rows.shape} is no matrix")
    height, width = rows.shape
    strip = max(1, CHUNK_BYTES // width)

    def read(start: int, stop: int) -> NDArray[Any]:
        parts = []
        for top in range(0, height, strip):
            parts.append(rows.read(top, min(top + strip, height))[:, start:stop].T.copy())
            rows.release()
        return np.concatenate(parts, axis=1)

    return replace(rows, shape=(width, height), read=read)


def add_one(rows: Rows) -> Rows:
    """Gemma's norms store ``weight - 1``. The sum is taken in f32, as the model does."""
    return replace(
        rows, dtype="F32", read=lambda start, stop: to_f32(rows.read(start, stop), rows.dtype) + np.float32(1)
    )


def first_rows(rows: Rows, count: int) -> Rows:
    """Only the first ``count`` rows."""
    return replace(rows, shape=(count, *rows.shape[1:]))


def rows_from(rows: Rows, start: int) -> Rows:
    """Without the first ``start`` rows. Raises :class:`Misfit` when there are no more."""
    if not rows.shape or rows.shape[0] <= start:
        raise Misfit(f"{rows.shape} has no rows behind the first {start}")
    shape = (rows.shape[0] - start, *rows.shape[1:])
    return replace(rows, shape=shape, read=lambda first, last: rows.read(first + start, last + start))


def scaled(rows: Rows, factor: float) -> Rows:
    """All values times ``factor``, in f32."""
    return replace(
        rows, dtype="F32", read=lambda start, stop: to_f32(rows.read(start, stop), rows.dtype) * np.float32(factor)
    )
