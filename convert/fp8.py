"""Weights in 8-bit floats, with the factors that they were divided by: per tensor, per row, or per block.

Elements: OCP 8-bit floating point (E4M3 without infinities, E5M2); E8M0 (a power of two) for factors: OCP microscaling
formats. Names: transformers' FineGrainedFP8 (``weight_scale_inv``; DeepSeek-V3, Qwen3-FP8), compressed-tensors and
fbgemm (``weight_scale``). In all of them the weight is element × factor.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .errors import BadCheckpoint
from .tensor import Scale, Tensor

DTYPES = ("F8_E4M3", "F8_E5M2")
FACTOR_DTYPES = ("F32", "F16", "BF16", "F64", "F8_E8M0")
FACTOR_SUFFIXES = ("_scale_inv", "_scale")
ACTIVATION_SCALES = (".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale")


@functools.cache
def table(dtype: str) -> NDArray[np.float32]:
    """What each of the 256 bytes stands for."""
    code = np.arange(256)
    if dtype == "F8_E5M2":
        return (code.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype == "F8_E8M0":
        return np.where(code == 255, np.nan, np.ldexp(1.0, code - 127)).astype(np.float32)
    exponent, fraction = code >> 3 & 15, code & 7
    size = np.where(exponent > 0, np.ldexp(1 + fraction / 8, exponent - 7), np.ldexp(fraction / 8, -6))
    return np.where(code & 127 == 127, np.nan, np.where(code > 127, -size, size)).astype(np.float32)


def with_scales(tensors: Mapping[str, Tensor], block: Sequence[int]) -> dict[str, Tensor]:
    """``tensors`` in which each fp8 weight has its factors, which then are no tensors of their own.

    block: rows and columns that share a factor, where there is more than one factor per row.

    Raises:
        BadCheckpoint: a weight without factors, or with a number of them that does not fit its shape.
    """
    found = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            continue
        factors = next((found.pop(name + suffix) for suffix in FACTOR_SUFFIXES if name + suffix in found), None)
        if factors is None:
            raise BadCheckpoint(
                f"tensor {name} is stored as {tensor.dtype}, but its factors ({name}_scale_inv) are missing",
                hint="the checkpoint is incomplete, or was changed by hand",
            )
        found[name] = replace(tensor, scale=_scale(tensor, factors, block))
    return found


def dequantised(tensor: Tensor, scale: Scale, chunk: NDArray[np.uint8], start: int) -> NDArray[np.float32]:
    """Rows of a weight as f32: element × factor, rounded once, as transformers dequantises.

    chunk: the stored rows from row ``start``; the rows of all matrices count, one below another.
    """
    values: NDArray[np.float32] = table(tensor.dtype)[chunk]
    rows = np.unravel_index(np.arange(start, start + len(chunk)), tensor.shape[:-1] or tensor.shape)
    factors = _numbers(scale.factors).reshape(_counts(tensor.shape, scale.block))
    factors = factors[tuple(row // step for row, step in zip(rows, scale.block, strict=False))]
    if len(tensor.shape) > 1:
        factors = np.repeat(factors, scale.block[-1], axis=-1)[:, : tensor.shape[-1]]
    values *= factors
    return values


def _scale(tensor: Tensor, factors: Tensor, block: Sequence[int]) -> Scale:
    """One factor for all, one per row, or one per block of the last two dimensions."""
    shape = tensor.shape
    if factors.dtype in FACTOR_DTYPES and shape:
        ones = (1,) * (len(shape) - 1)
        blocks = (1,) * (len(shape) - 2) + tuple(block) if len(shape) >= 2 else shape
        if factors.shape in ((), (1,)):
            return Scale(factors, shape)
        if factors.shape in (shape[:1], shape[:1] + ones):
            return Scale(factors, (1, *shape[1:]))
        if factors.shape == _counts(shape, blocks):
            return Scale(factors, blocks)
    raise BadCheckpoint(
        f"tensor {tensor.name} of {shape} has factors {factors.dtype}{list(factors.shape)}: neither one, nor one per "
        f"row, nor one per block of {list(block)}",
        hint="quantization_config.weight_block_size must say how the checkpoint was quantized",
    )


def _counts(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    """How many blocks there are in each dimension."""
    return tuple(-(-length // max(1, step)) for length, step in zip(shape, block, strict=True))


def _numbers(factors: Tensor) -> NDArray[np.float32]:
    stored = factors.values
    if factors.dtype == "F8_E8M0":
        stored = table("F8_E8M0")[stored]
    elif factors.dtype == "BF16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32)
