"""Transforms read in chunks give what the whole array would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import transforms
from ingle.convert.transforms import (
    Misfit,
    Rows,
    add_one,
    column,
    first_rows,
    negative_exp,
    regroup,
    reshape,
    rope_rows,
    squeeze,
    stack,
    transpose,
)


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


def whole_in_small_chunks(source: Rows, chunk: int) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transforms, "CHUNK_BYTES", chunk)
        return whole(source)


@given(count=st.integers(1, 5), height=st.integers(1, 6), width=st.integers(1, 4), chunk=st.integers(1, 200))
def test_stack_is_a_concatenation(count: int, height: int, width: int, chunk: int) -> None:
    values = np.random.default_rng(0).normal(size=(count, height, width)).astype(np.float32)
    stacked = stack([rows(part) for part in values])
    assert stacked.shape == values.shape
    assert np.array_equal(whole_in_small_chunks(stacked, chunk), values.reshape(-1, width))
    vectors = stack([rows(part) for part in values[:, :, 0]])
    assert np.array_equal(whole_in_small_chunks(vectors, chunk), values[:, :, 0])


def test_unlike_parts_are_not_stacked() -> None:
    with pytest.raises(Misfit):
        stack([rows(np.ones((2, 3))), rows(np.ones((3, 2)))])


@given(groups=st.integers(1, 5), sizes=st.lists(st.integers(1, 5), min_size=3, max_size=3), chunk=st.integers(1, 200))
def test_regroup_puts_like_parts_together(groups: int, sizes: list[int], chunk: int) -> None:
    parts = [np.random.default_rng(n).normal(size=(groups, size, 3)) for n, size in enumerate(sizes)]
    fused = np.concatenate(parts, axis=1).reshape(-1, 3)
    result = whole_in_small_chunks(regroup(rows(fused), sizes, groups, 2, 0), chunk)
    assert np.array_equal(result, np.concatenate([parts[2].reshape(-1, 3), parts[0].reshape(-1, 3)]))
    with pytest.raises(Misfit):
        regroup(rows(fused), sizes, groups + 1, 0)


@given(count=st.integers(1, 4), height=st.integers(1, 6), width=st.integers(1, 6), chunk=st.integers(1, 200))
def test_transpose_of_each_matrix(count: int, height: int, width: int, chunk: int) -> None:
    values = np.arange(count * height * width, dtype=np.float32).reshape(count, height, width)
    turned = transpose(stack([rows(part) for part in values]))
    assert turned.shape == (count, width, height)
    assert np.array_equal(whole_in_small_chunks(turned, chunk), values.swapaxes(1, 2).reshape(-1, height))


@pytest.mark.parametrize("start", [(24,), (2, 12), (3, 2, 4)])
@pytest.mark.parametrize("shape", [(24,), (6, 4), (2, 12), (2, 3, 4), (24, 1), (1, 24)])
@pytest.mark.parametrize("chunk", [4, 40, 4000])
def test_reshape_keeps_the_order(start: tuple[int, ...], shape: tuple[int, ...], chunk: int) -> None:
    values = np.arange(24, dtype=np.float32).reshape(-1, *start[1:][-1:])
    result = reshape(Rows(start, "F32", lambda first, last: values[first:last]), shape)
    assert result.shape == shape
    assert whole_in_small_chunks(result, chunk).ravel().tolist() == list(range(24))


def test_squeeze_column_and_negative_exp() -> None:
    assert squeeze(rows(np.ones((3, 1)))).shape == (3,)
    assert whole(column(rows(np.array([1.0, 2.0])))).tolist() == [[1.0], [2.0]]
    assert whole(negative_exp(rows(np.array([0.0], np.float32)))).tolist() == [-1.0]
