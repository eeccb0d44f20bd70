"""Our attention beside what numpy computes in f64, and beside llama.cpp's own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingle.runtime.llama import backend
from ingle.runtime.llama.context import Context, ContextOptions, Rows
from ingle.runtime.llama.library import library
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.llama.tensor import Tensor

Array = np.ndarray[Any, Any]
F32, F16 = 0, 1
GONE = -np.inf
LEVELS = ("", "avx2")
ASK = """
import ctypes, json
from ingle.runtime.llama.library import levels, library
find = library()._lib.ggml_backend_dev_by_name
find.argtypes, find.restype = [ctypes.c_char_p], ctypes.c_void_p
print(json.dumps({"levels": levels(), "there": find(b"ingle") is not None}))
"""
ggml: Any = library()._lib

pytestmark = pytest.mark.skipif(
    backend.compiled() is None or sys.platform != "linux", reason="it needs a compiler with OpenMP, and Linux"
)


@pytest.fixture(scope="module", autouse=True, params=LEVELS, ids=("best", "avx2"))
def level(request: pytest.FixtureRequest) -> str:
    """Each level that this CPU has; the best is back afterwards."""
    operations = backend.find_operations(ggml)
    assert operations is not None
    if not backend.prepare(ggml, operations, request.param).attention:
        pytest.skip("this CPU has none of its levels")
    request.addfinalizer(lambda: backend.prepare(ggml, operations))
    return str(request.param)


class Node:
    """A node of attention over arrays. queries: (tokens, heads, width) f32; keys and values: (cells, kv heads, width)
    f16; mask: (tokens, cells) f16."""

    def __init__(self, queries: Array, keys: Array, values: Array, mask: Array, *, extra: float = 0.0) -> None:
        self._shape = queries.shape
        self._context = ggml.ggml_init(backend._Memory(1 << 24, None, False))
        first, second, third, hidden = (self._tensor(array) for array in (queries, keys, values, mask[None]))
        ggml.ggml_permute.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int] * 4
        ggml.ggml_permute.restype = ctypes.c_void_p
        turned = [ggml.ggml_permute(self._context, one, 0, 2, 1, 3) for one in (first, second, third)]
        scale = queries.shape[-1] ** -0.5
        self.address = ggml.ggml_flash_attn_ext(self._context, *turned, hidden, scale, 0.0, extra)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        ggml.ggml_free(self._context)

    def _tensor(self, array: Array) -> Any:
        made = ggml.ggml_new_tensor_3d(self._context, F32 if array.dtype == np.float32 else F16, *array.shape[::-1])
        whole = np.ascontiguousarray(array)
        ctypes.memmove(ggml.ggml_get_data(made), whole.ctypes.data, whole.nbytes)
        return made

    def ours(self, threads: int) -> Array:
        tensor = Tensor.from_address(self.address)
        found = np.ctypeslib.as_array(ctypes.cast(tensor.data, ctypes.POINTER(ctypes.c_float)), self._shape)
        found[:] = np.nan
        compiled = backend.compiled()
        assert compiled is not None
        assert compiled.backend_compute_node(self.address, threads, None) == 0
        return np.array(found)

    @property
    def is_taken(self) -> bool:
        """Whether llama.cpp would be told that we compute it."""
        ggml.ggml_backend_dev_by_name.argtypes, ggml.ggml_backend_dev_by_name.restype = (
            [ctypes.c_char_p],
            ctypes.c_void_p,
        )
        ggml.ggml_backend_dev_supports_op.argtypes = [ctypes.c_void_p] * 2
        ggml.ggml_backend_dev_supports_op.restype = ctypes.c_bool
        return bool(ggml.ggml_backend_dev_supports_op(ggml.ggml_backend_dev_by_name(b"ingle"), self.address))


def drawn(tokens: int, cells: int, heads: int, kv_heads: int, width: int, seed: int = 0) -> tuple[Array, Array, Array]:
    generator = np.random.default_rng(seed)
    shapes = (tokens, heads, width), (cells, kv_heads, width), (cells, kv_heads, width)
    queries, keys, values = (generator.standard_normal(shape, np.float32) for shape in shapes)
    return 2 * queries, keys.astype(np.float16), values.astype(np.float16)


def expected(queries: Array, keys: Array, values: Array, mask: Array) -> Array:
    shared = queries.shape[1] // keys.shape[1]
    wide = [np.repeat(array.astype(np.float64), shared, 1) for array in (keys, values)]
    scores = np.einsum("thd,chd->thc", queries.astype(np.float64), wide[0]) * queries.shape[-1] ** -0.5
    scores += mask.astype(np.float64)[:, None]
    most = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(most), most, 0))
    sums = weights.sum(-1, keepdims=True)
    return np.asarray(np.einsum("thc,chd->thd", np.divide(weights, sums, out=0 * weights, where=sums > 0), wide[1]))


def causal(tokens: int, cells: int, window: int = 0) -> Array:
    """The last tokens of a text; with a window, each sees so many cells."""
    place, cell = np.arange(tokens)[:, None] + max(0, cells - tokens), np.arange(cells)[None]
    unseen = (cell > place) | ((cell <= place - window) if window else False)
    return np.where(unseen, GONE, 0).astype(np.float16)


def crowd(tokens: int, cells: int, common: int = 0) -> Array:
    """Each token is of another text; the texts have the first cells in common, and take turns in the others."""
    cell, token = np.arange(cells)[None], np.arange(tokens)[:, None]
    return np.where((cell < common) | (cell % tokens == token), 0, GONE).astype(np.float16)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_computes_what_attention_is(data: st.DataObject) -> None:
    tokens, cells = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 700))
    kv_heads, shared = data.draw(st.integers(1, 4)), data.draw(st.sampled_from((1, 2, 3, 7, 8, 71)))
    width = data.draw(st.sampled_from((16, 64, 80, 128)))
    kind = data.draw(st.sampled_from(("causal", "window", "crowd", "common", "any")))
    mask = {
        "causal": lambda: causal(tokens, cells),
        "window": lambda: causal(tokens, cells, 40),
        "crowd": lambda: crowd(tokens, cells),
        "common": lambda: crowd(tokens, cells, cells // 2),
        "any": lambda: np.where(np.random.default_rng(1).random((tokens, cells)) < 0.5, 0, GONE).astype(np.float16),
    }[kind]()
    queries, keys, values = drawn(tokens, cells, kv_heads * shared, kv_heads, width)
    with Node(queries, keys, values, mask) as node:
        found = node.ours(data.draw(st.integers(1, 3)))
        assert node.is_taken
    assert np.abs(found - expected(queries, keys, values, mask)).max() < 2e-5


def test_what_a_mask_adds_is_added_and_who_sees_nothing_takes_nothing() -> None:
    queries, keys, values = drawn(9, 300, 4, 2, 64)
    mask = np.where(causal(9, 300) == 0, np.random.default_rng(0).standard_normal((9, 300)), GONE).astype(np.float16)
    mask[4] = GONE
    with Node(queries, keys, values, mask) as node:
        found = node.ours(2)
    assert np.abs(found - expected(queries, keys, values, mask)).max() < 2e-5
    assert not found[4].any()


def test_cells_that_nobody_sees_do_not_matter() -> None:
    queries, keys, values = drawn(3, 512, 9, 3, 64)
    mask = crowd(3, 512, 100)
    mask[:, 300:] = GONE
    with Node(queries, keys, values, mask) as node:
        before = node.ours(2)
    keys[300:], values[300:] = np.nan, np.inf
    with Node(queries, keys, values, mask) as node:
        assert np.array_equal(node.ours(2), before)


def test_a_text_comes_out_the_same_to_the_bit_wherever_its_cells_are() -> None:
    queries, keys, values = drawn(1, 400, 9, 3, 64)
    seen = np.sort(np.random.default_rng(2).permutation(1500)[:400])
    far_keys, far_values = np.full((2, 1536, 3, 64), np.nan, np.float16)
    far_keys[seen], far_values[seen] = keys, values
    mask = np.full((1, 1536), GONE, np.float16)
    mask[0, seen] = 0
    with Node(queries, keys, values, causal(1, 400)) as near, Node(queries, far_keys, far_values, mask) as far:
        assert np.array_equal(near.ours(2), far.ours(2))


@pytest.mark.parametrize("size", [(3, 40, 4, 2, 24), (3, 40, 4, 2, 1024)])
def test_other_widths_are_left_to_llama_cpp(size: tuple[int, int, int, int, int]) -> None:
    with Node(*drawn(*size), causal(3, 40)) as node:
        assert not node.is_taken


def test_capped_scores_sinks_and_other_types_are_left_to_llama_cpp() -> None:
    queries, keys, values = drawn(3, 40, 4, 2, 64)
    with Node(queries, keys, values, causal(3, 40), extra=30.0) as node:
        assert not node.is_taken
    with Node(queries, keys.astype(np.float32), values.astype(np.float32), causal(3, 40)) as node:
        assert not node.is_taken
    with Node(queries, keys, values, causal(3, 40)) as node:
        tensor = Tensor.from_address(node.address)
        assert node.is_taken
        tensor.src[4] = tensor.src[0]
        assert not node.is_taken


def logits(path: Path, attention: str, tokens: list[int]) -> Array:
    model = NativeModel(path)
    context = Context(model, ContextOptions(512, 1, 256, 2, 2, "f16", attention))
    try:
        outputs = context.decode([Rows(0, 0, tokens, True)])
        return np.array(context.logits(outputs[0]))
    finally:
        context.close()
        model.close()


def test_a_model_says_the_same(bard_gguf: Mapping[str, Path]) -> None:
    tokens = [300 + 7 * place % 3000 for place in range(250)]
    ours, plain = (logits(bard_gguf["f32"], way, tokens) for way in ("on", "off"))
    assert np.abs(ours - plain).max() < 2e-3 * np.abs(plain).max()


@pytest.mark.parametrize("switch", ["", "avx2", "off"])
@pytest.mark.parametrize("products", ["", "off"])
def test_it_can_be_switched_off(switch: str, products: str, level: str) -> None:
    if level:
        pytest.skip("once is enough")
    surroundings = os.environ | {backend.ATTENTION: switch, backend.PRODUCTS: products}
    done = subprocess.run([sys.executable, "-c", ASK], env=surroundings, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    usual = backend.prepare(ggml, backend.find_operations(ggml) or backend.Operations(0, 0))
    attention = "" if switch == "off" else switch or usual.attention
    assert found["levels"] == [attention, usual.products if products == "" else ""]
    assert found["there"] == any(found["levels"])
