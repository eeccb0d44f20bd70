"""Numbers in the storage types of a conversion: f32, f16, bf16 and q8_0, bit for bit as llama.cpp rounds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fp8
from .errors import UnsupportedModel

Q8_0_BLOCK = 32


def to_f32(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Any source dtype (F64, F32, F16, and as bits BF16, F8_E4M3 or F8_E5M2) as f32."""
    if dtype in fp8.DTYPES:
        return np.asarray(fp8.table(dtype)[values])
    if dtype == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def encode(values: NDArray[Any], source: str, target: str) -> NDArray[Any]:
    """``values`` of dtype ``source`` in the element type ``target`` (F32, F16, BF16 or Q8_0).

    A value too large for f16 becomes infinite (see :func:`count_overflows`).

    Raises:
        UnsupportedModel: a block has no finite q8_0 scale.
    """
    if source == target:
        return values
    numbers = to_f32(values, source)
    if target == "F32":
        return numbers
    if target == "F16":
        return _to_f16(numbers)
    return _to_bf16(numbers) if target == "BF16" else _to_q8_0(numbers)


def count_overflows(source: NDArray[Any], halves: NDArray[Any]) -> int:
    """How many values became infinite in f16 that were not infinite before. ``source``: as it was, bf16 as u16 bits."""
    infinite = np.isinf(halves)
    if not infinite.any():
        return 0
    already = (source & 0x7FFF) == 0x7F80 if source.dtype == np.uint16 else np.isinf(source)
    return int(np.count_nonzero(infinite & ~already))


def clipped(values: NDArray[Any], source: str) -> NDArray[np.float16]:
    """``values`` in f16, finite ones beyond its range as the largest that there is."""
    numbers = to_f32(values, source)
    largest = float(np.finfo(np.float16).max)
    return _to_f16(np.where(np.isinf(numbers), numbers, np.clip(numbers, -largest, largest)))


def _to_f16(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float16)


def _to_bf16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even; a NaN stays one and becomes quiet."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(64)
    return np.where(np.isnan(numbers), quiet, rounded).astype(np.uint16)


def _to_q8_0(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blocks of 32: an f16 scale ``max |x| / 127``, then ``round(x / scale)`` as i8, halves away from zero."""
    blocks = numbers.reshape(-1, Q8_0_BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    rest = blocks * inverse
    rounded = np.trunc(rest)
    rest -= rounded
    rounded += np.trunc(rest + rest)
    halves = _to_f16(scale)
    if not np.isfinite(halves).all():
        raise UnsupportedModel(
            "a block of weights is not finite or too large for q8_0", hint="convert with --dtype bf16 (or f32)"
        )
    packed = np.empty((len(blocks), 2 + Q8_0_BLOCK), np.uint8)
    packed[:, :2] = halves.view(np.uint8)
    packed[:, 2:] = rounded.astype(np.int8).view(np.uint8)
    return packed


def from_q8_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The values of blocks of 34 bytes, in order, as a vector."""
    packed = blocks.reshape(-1, 2 + Q8_0_BLOCK)
    scale = packed[:, :2].copy().view(np.float16).astype(np.float32)
    return (packed[:, 2:].view(np.int8) * scale).ravel()
