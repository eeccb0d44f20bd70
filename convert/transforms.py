"""Tensors on their way from checkpoint to GGUF, as rows that are read when they are written.

A transform takes a :class:`Rows` and gives another one: nothing is read until :meth:`Rows.read` is called for a range
of rows, so the memory of a conversion is that of a chunk, not of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fp8
from .encode import to_f32
from .tensor import Tensor

# Of f32 values: small enough for a core's cache, so that the passes over a chunk do not wait for memory.
CHUNK_BYTES = 2 << 20


class Misfit(ValueError):
    """A tensor has a shape that a transform cannot work on."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor that is read in ranges of its rows.

    Of a vector the rows are its elements, of a matrix its rows; a tensor of more dimensions is read as the rows of its
    matrices, one below another. dtype: F64, F32, F16, BF16 or F8_*, of what ``read(start, stop)`` gives (bf16 and fp8
    as bits), shaped ``(stop - start, *row)``. ``release()`` lets go of the file's memory between two chunks.
    factors: of a product of two matrices, these; whatever else happens to the rows happens to the product of these.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[int, int], NDArray[Any]] = field(repr=False, compare=False)
    release: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)
    factors: Factors | None = field(default=None, repr=False, compare=False)

    @property
    def height(self) -> int:
        """How many rows there are."""
        return math.prod(self.shape[:-1]) if len(self.shape) > 1 else math.prod(self.shape)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows that cover all of them in order, about ``CHUNK_BYTES`` each."""
        step = max(1, CHUNK_BYTES // (4 * (self.shape[-1] if len(self.shape) > 1 else 1)))
        for start in range(0, self.height, step):
            yield start, min(start + step, self.height)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """All rows in order, about ``CHUNK_BYTES`` at a time."""
        for start, stop in self.spans():
            yield self.read(start, stop)
            self.release()


@dataclass(frozen=True, slots=True)
class Factors:
    """The two sides of a product ``left @ right``, as an adapter has it: (…, height, rank) and (…, rank, width)."""

    left: Rows
    right: Rows


Side = Callable[[Rows], Rows]


def _same(rows: Rows) -> Rows:
    return rows


def _changed(rows: Rows, left: Side | None = None, right: Side = _same, **changes: Any) -> Rows:
    """``rows`` with ``changes``, and what they mean for its factors; without ``left`` they are no product any more."""
    factors = rows.factors
    if factors is not None:
        factors = Factors(left(factors.left), right(factors.right)) if left else None
    return replace(rows, factors=factors, **changes)


def product(left: Rows, right: Rows) -> Rows:
    """``left @ right``, two matrices, in f32; both stay at hand as its factors.

    Raises :class:`Misfit` when they cannot be multiplied.
    """
    if len(left.shape) != 2 or len(right.shape) != 2 or left.shape[1] != right.shape[0]:
        raise Misfit(f"{left.shape} and {right.shape} cannot be multiplied")

    def read(start: int, stop: int) -> NDArray[Any]:
        whole = to_f32(right.read(0, right.height), right.dtype)
        return np.asarray(to_f32(left.read(start, stop), left.dtype) @ whole)

    return Rows((left.shape[0], right.shape[1]), "F32", read, factors=Factors(left, right))


def rows_of(tensor: Tensor) -> Rows:
    """A checkpoint tensor as it is; one of 8-bit floats with factors as the f32 that they stand for."""
    scale = tensor.scale

    def read(start: int, stop: int) -> NDArray[Any]:
        values = tensor.values
        chunk = (values.reshape(-1, values.shape[-1]) if values.ndim > 2 else values)[start:stop]
        return chunk if scale is None else fp8.dequantised(tensor, scale, chunk, start)

    return Rows(tensor.shape, tensor.dtype if scale is None else "F32", read, tensor.release)


def constant(values: NDArray[np.float32]) -> Rows:
    """Values that were computed, not read."""
    return Rows(values.shape, "F32", lambda start, stop: values[start:stop])


def stack(parts: Sequence[Rows]) -> Rows:
    """Tensors of one shape one below another, as one of ``(len(parts), *shape)``: the experts of a layer.

    Raises :class:`Misfit` when they are not alike.
    """
    shape, dtype = parts[0].shape, parts[0].dtype
    if any((part.shape, part.dtype) != (shape, dtype) for part in parts):
        raise Misfit(f"parts of {sorted({part.shape for part in parts})} and {sorted({part.dtype for part in parts})}")
    matrices = [reshape(part, (1, *shape)) for part in parts] if len(shape) == 1 else parts
    height = matrices[0].height

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.concatenate([
            matrices[place].read(max(start - place * height, 0), min(stop - place * height, height))
            for place in range(start // height, (stop - 1) // height + 1)
        ])  # fmt: skip

    def release() -> None:
        for part in parts:
            part.release()

    factors = [part.factors for part in parts if part.factors is not None]
    both = Factors(stack([one.left for one in factors]), stack([one.right for one in factors])) if factors else None
    return Rows((len(parts), *shape), dtype, read, release, both if len(factors) == len(parts) else None)


def gather(rows: Rows, source: NDArray[np.intp], shape: tuple[int, ...] | None = None) -> Rows:
    """Row ``i`` of the result is row ``source[i]``; ``shape`` is that of the result, ``(len(source), row)`` if none.

    Rows that lie near each other are read together, so that a chunk costs about its own size in memory.
    """

    def read(start: int, stop: int) -> NDArray[Any]:
        wanted = source[start:stop]
        jumps = np.flatnonzero(np.abs(np.diff(wanted)) > len(wanted)) + 1
        return np.concatenate([_span(rows, piece) for piece in np.split(wanted, jumps)])

    shape = shape or (len(source), *rows.shape[1:][-1:])
    plain = len(rows.shape) == len(shape) == 2
    return _changed(rows, (lambda left: gather(left, source)) if plain else None, shape=shape, read=read)


def _span(rows: Rows, wanted: NDArray[np.intp]) -> NDArray[Any]:
    first, last = int(wanted.min()), int(wanted.max())
    return rows.read(first, last + 1)[wanted - first]


def columns(rows: Rows, source: NDArray[np.intp]) -> Rows:
    """Column ``i`` of the result is column ``source[i]``. Raises :class:`Misfit` when there are not so many."""
    if len(rows.shape) < 2 or rows.shape[-1] <= int(source.max()):
        raise Misfit(f"{rows.shape} has no column {source.max()}")
    return _changed(
        rows,
        _same,
        lambda right: columns(right, source),
        shape=(*rows.shape[:-1], len(source)),
        read=lambda start, stop: rows.read(start, stop)[:, source],
    )


def regroup(rows: Rows, sizes: Sequence[int], groups: int, *parts: int) -> Rows:
    """Some parts of each group of rows, all groups of one part before the next part.

    The rows are ``groups`` times parts of ``sizes`` rows, as fused projections have them head by head. The result has
    the parts numbered ``parts``, in that order. Raises :class:`Misfit` when the rows do not divide so.
    """
    if rows.height != groups * sum(sizes):
        raise Misfit(f"{rows.shape} does not divide into {groups} groups of {sum(sizes)} rows")
    index = np.arange(rows.height).reshape(groups, -1)
    ends = np.cumsum(sizes)
    return gather(rows, np.concatenate([index[:, ends[part] - sizes[part] : ends[part]].ravel() for part in parts]))


def rope_rows(rows: Rows, num_heads: int) -> Rows:
    """Reorder the rows of a query or key projection for llama.cpp's ``llama`` rotary embedding.

    transformers rotates element ``i`` of a head with element ``i + head_dim / 2``; llama.cpp's "norm" kind rotates
    neighbours. Row ``2 i + j`` of a head of the result is row ``j head_dim / 2 + i`` of the source.
    Raises :class:`Misfit` when the rows do not divide into heads of even size.
    """
    if not rows.shape or rows.height % (2 * num_heads):
        raise Misfit(f"{rows.shape} does not divide into {num_heads} heads of even size")
    return gather(rows, np.arange(rows.height).reshape(num_heads, 2, -1).swapaxes(1, 2).ravel(), rows.shape)


def transpose(rows: Rows) -> Rows:
    """Swap the last two dimensions: GPT-2 keeps its projections as (in, out). Reads the source in strips, per chunk.

    Raises :class:`Misfit` for a vector.
    """
    if len(rows.shape) < 2:
        raise Misfit(f"{rows.shape} is no matrix")
    *outer, height, width = rows.shape
    strip = max(1, CHUNK_BYTES // width)

    def columns(matrix: int, start: int, stop: int) -> NDArray[Any]:
        parts = []
        for top in range(0, height, strip):
            first = matrix * height + top
            parts.append(rows.read(first, first + min(strip, height - top))[:, start:stop].T.copy())
            rows.release()
        return np.concatenate(parts, axis=1)

    def read(start: int, stop: int) -> NDArray[Any]:
        matrices = range(start // width, (stop - 1) // width + 1)
        return np.concatenate([
            columns(matrix, max(start - matrix * width, 0), min(stop - matrix * width, width)) for matrix in matrices
        ])  # fmt: skip

    factors = Factors(transpose(rows.factors.right), transpose(rows.factors.left)) if rows.factors else None
    return replace(rows, shape=(*outer, width, height), read=read, factors=factors)


def reshape(rows: Rows, shape: tuple[int, ...]) -> Rows:
    """The same values in the same order under another shape. Raises :class:`Misfit` when their number differs."""
    if math.prod(shape) != math.prod(rows.shape):
        raise Misfit(f"{rows.shape} has not the values of {shape}")
    if shape == rows.shape:
        return rows
    if shape[-1] == rows.shape[-1] and min(len(shape), len(rows.shape)) > 1:
        return _changed(rows, shape=shape)
    width = shape[-1] if len(shape) > 1 else 1
    row = (width,) if len(shape) > 1 else ()

    def read(start: int, stop: int) -> NDArray[Any]:
        wide = rows.shape[-1] if len(rows.shape) > 1 else 1
        first, last = start * width, stop * width
        source = rows.read(first // wide, -(-last // wide)).ravel()
        return source[first - first // wide * wide :][: last - first].reshape(stop - start, *row)

    single = len(rows.shape) == 2 and shape == rows.shape[1:] and rows.height == 1
    return _changed(rows, _same if single else None, shape=shape, read=read)


def squeeze(rows: Rows) -> Rows:
    """Without the dimensions of 1, as of a convolution over one channel."""
    return reshape(rows, tuple(size for size in rows.shape if size != 1) or (1,))


def column(rows: Rows) -> Rows:
    """A vector as a matrix of one column."""
    return reshape(rows, (*rows.shape, 1))


def add_one(rows: Rows) -> Rows:
    """Gemma's norms store ``weight - 1``. The sum is taken in f32, as the model does."""
    return computed(rows, lambda values: values + np.float32(1))


def negative_exp(rows: Rows) -> Rows:
    """Mamba stores the logarithm of its decay: ``-exp(a)``, in f32."""
    return computed(rows, lambda values: -np.exp(values))


def computed(rows: Rows, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Rows:
    """Each value changed by ``function``, in f32."""
    return _changed(rows, dtype="F32", read=lambda start, stop: function(to_f32(rows.read(start, stop), rows.dtype)))


def first_rows(rows: Rows, count: int) -> Rows:
    """Only the first ``count`` rows."""
    return _changed(rows, lambda left: first_rows(left, count), shape=(count, *rows.shape[1:]))


def rows_from(rows: Rows, start: int) -> Rows:
    """Without the first ``start`` rows. Raises :class:`Misfit` when there are no more."""
    if not rows.shape or rows.shape[0] <= start:
        raise Misfit(f"{rows.shape} has no rows behind the first {start}")
    shape = (rows.shape[0] - start, *rows.shape[1:])
    return _changed(
        rows,
        lambda left: rows_from(left, start),
        shape=shape,
        read=lambda first, last: rows.read(first + start, last + start),
    )


def scaled(rows: Rows, factor: float) -> Rows:
    """All values times ``factor``, in f32."""
    return _changed(
        rows,
        lambda left: scaled(left, factor),
        dtype="F32",
        read=lambda start, stop: to_f32(rows.read(start, stop), rows.dtype) * np.float32(factor),
    )
