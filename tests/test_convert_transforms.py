"""Transforms read in chunks give what the whole array would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import transforms
from ingle.convert.transforms import Rows, add_one, first_rows, rope_rows, transpose


def rows(values: np.ndarray, dtype: str = "F32") -> Rows:
    return Rows(values.shape, dtype, lambda start, stop: values[start:stop])


def whole(source: Rows) -> np.ndarray:
    return np.concatenate(list(source.chunks()))


@given(heads=st.integers(1, 5), half=st.integers(1, 6), width=st.integers(1, 4), chunk=st.integers(1, 90))
def test_rope_rows_swap_the_halves_of_each_head(heads: int, half: int, width: int, chunk: int) -> None:
    values = np.random.default_rng(0).normal(size=(heads * half * 2, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "CHUNK_BYTES", chunk)
        result = whole(rope_rows(rows(values), heads))
    expected = values.reshape(heads, 2, half, width).swapaxes(1, 2).reshape(values.shape)
    assert np.array_equal(result, expected)


@given(height=st.integers(1, 9), width=st.integers(1, 9), chunk=st.integers(1, 200))
def test_transpose(height: int, width: int, chunk: int) -> None:
    values = np.arange(height * width, dtype=np.float32).reshape(height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "CHUNK_BYTES", chunk)
        turned = transpose(rows(values))
        assert turned.shape == (width, height)
        assert np.array_equal(whole(turned), values.T)


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_add_one_is_exact_in_f32(dtype: str) -> None:
    values = np.array([1 / 1024, 3.0], np.float16 if dtype == "F16" else np.float32)
    result = add_one(rows(values, dtype))
    assert result.dtype == "F32"
    assert whole(result).tolist() == [1 + 1 / 1024, 4.0]


def test_first_rows() -> None:
    assert whole(first_rows(rows(np.arange(6).reshape(3, 2)), 2)).tolist() == [[0, 1], [2, 3]]


def test_no_chunk_grows_with_the_tensor() -> None:
    sizes: list[int] = []
    released: list[int] = []

    def read(start: int, stop: int) -> Any:
        sizes.append((stop - start) * 4096 * 4)
        return np.broadcast_to(np.float32(0), (stop - start, 4096))

    huge = Rows((1 << 17, 4096), "F32", read, lambda: released.append(1))
    assert sum(len(chunk) for chunk in huge.chunks()) == 1 << 17
    assert max(sizes) <= transforms.CHUNK_BYTES
    assert len(released) == len(sizes) > 1_000
