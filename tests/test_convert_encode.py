"""Storage types, bit for bit as llama.cpp's own Python writes them."""

from __future__ import annotations

import numpy as np
import pytest
from ingle.convert.encode import count_overflows, encode, to_f32
from ingle.convert.errors import UnsupportedModel


def corners() -> np.ndarray:
    """Random values of all magnitudes, ties, signed zeros, subnormals and a block of zeros; 32 to a row."""
    random = np.random.default_rng(3)
    values = random.normal(size=(64, 32)).astype(np.float32) * np.float32(10) ** random.integers(-12, 4, (64, 1))
    values[0] = 0
    values[1] = np.arange(-16, 16) * 0.5  # with the scale of 127 below, every tie of the rounding
    values[1, 0] = 127
    values[2, :4] = [0.0, -0.0, 1e-45, -1e-40]
    values[3] = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F7FFFFF] * 8, np.uint32).view(np.float32)
    return values.astype(np.float32)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q8_0"])
def test_the_bytes_are_the_references(name: str) -> None:
    from gguf import GGMLQuantizationType, quants

    theirs = quants.quantize(corners(), GGMLQuantizationType[name])
    assert np.ascontiguousarray(encode(corners(), "F32", name)).tobytes() == theirs.tobytes()


def test_a_bf16_nan_stays_a_nan() -> None:
    bits = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000], np.uint32)
    back = to_f32(encode(bits.view(np.float32), "F32", "BF16"), "BF16")
    assert np.isnan(back[:2]).all()
    assert np.isinf(back[2:]).all()


def test_bf16_goes_to_f32_and_back_unchanged() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = bits[~np.isnan(to_f32(bits, "BF16"))]
    assert np.array_equal(encode(to_f32(numbers, "BF16"), "F32", "BF16"), numbers)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_overflows_of_f16_are_counted(dtype: str) -> None:
    values = np.array([1.0, 70_000.0, -70_000.0, np.inf, -np.inf], np.float32)
    source = values if dtype == "F32" else encode(values, "F32", "BF16")
    assert count_overflows(source, encode(source, dtype, "F16")) == 2


def test_q8_0_refuses_what_it_cannot_hold() -> None:
    for bad in (np.inf, np.nan, 1e12):
        with pytest.raises(UnsupportedModel), np.errstate(invalid="ignore"):
            encode(np.full((1, 32), bad, np.float32), "F32", "Q8_0")
