"""Our products with quantized weights beside what numpy computes in f64, and beside llama.cpp's own."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingle.convert.ggml import TYPES
from ingle.quantize import blocks, quantize
from ingle.runtime.llama import backend
from ingle.runtime.llama.context import Context, ContextOptions, Rows
from ingle.runtime.llama.library import levels, library
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.llama.tensor import Tensor

Array = np.ndarray[Any, Any]
F32 = 0
OURS = ("Q8_0", "Q5_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K")
REPACKED = ("Q4_0", "Q4_K")
LEVELS = ("", "avx_vnni", "avx2")
HALVES = {"Q8_0": (0, 2), "Q5_0": (0, 2), "Q4_0": (0, 2), "Q4_K": (0, 4), "Q5_K": (0, 4), "Q6_K": (208, 210)}
"""Where the scales of a block lie, and where a type has them its offsets."""
ggml: Any = library()._lib

pytestmark = pytest.mark.skipif(
    backend.compiled() is None or sys.platform != "linux" or not levels().products,
    reason="it needs a compiler with OpenMP, Linux, and a CPU with AVX2",
)


@pytest.fixture(scope="module", autouse=True, params=LEVELS, ids=("best", "avx_vnni", "avx2"))
def level(request: pytest.FixtureRequest) -> str:
    """Each level that this CPU has; the best is back afterwards."""
    request.addfinalizer(lambda: begin(""))
    if begin(request.param) != (request.param or levels().products) or request.param == levels().products:
        pytest.skip("this CPU does not have it, or nothing better")
    return str(request.param)


def begin(level: str) -> str:
    operations = backend.find_operations(ggml)
    assert operations is not None
    return backend.prepare(ggml, operations, products=level).products


class Node:
    """A node that multiplies rows of f32, (rows, inputs), with weights of a type, (outputs, inputs)."""

    def __init__(self, rows: Array, weights: Array, kind: str, repacked: bool = False) -> None:
        self._kind = kind
        element = TYPES[kind]
        with ThreadPoolExecutor(1) as pool:
            self.data = blocks.encode(weights, element, None, pool)
        self.weights = blocks.decode(self.data, element, weights.shape[1])
        self._shape = len(rows), len(weights)
        self._contexts = [ggml.ggml_init(backend._Memory(1 << 24, None, False))]
        self._buffer = None
        first = self._repacked(element.id) if repacked else self._plain(element.id, self.data)
        second = self._tensor(self._contexts[0], F32, rows.shape[::-1])
        ctypes.memmove(ggml.ggml_get_data(second), np.ascontiguousarray(rows).ctypes.data, rows.nbytes)
        self.address = ggml.ggml_mul_mat(self._contexts[0], first, second)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        for context in self._contexts:
            ggml.ggml_free(context)
        if self._buffer:
            ggml.ggml_backend_buffer_free(self._buffer)

    def _tensor(self, context: Any, kind: int, shape: tuple[int, ...]) -> Any:
        return ggml.ggml_new_tensor_3d(context, kind, *shape, 1)

    def _plain(self, kind: int, data: Array) -> Any:
        made = self._tensor(self._contexts[0], kind, self.weights.shape[::-1])
        ctypes.memmove(ggml.ggml_get_data(made), data.ctypes.data, data.nbytes)
        return made

    def fill(self, byte: int) -> None:
        """Make all bytes of the weights that one, but for the halves of a block, which become 0.5."""
        element = TYPES[self._kind]
        self.data.reshape(-1, element.block_bytes)[:] = byte
        self.data.reshape(-1, element.block_bytes)[:, slice(*HALVES[self._kind])].view("<f2")[:] = 0.5
        self.weights = blocks.decode(self.data, element, self.weights.shape[1])
        weights = Tensor.from_address(Tensor.from_address(self.address).src[0])
        ctypes.memmove(weights.data, self.data.ctypes.data, self.data.nbytes)

    def _repacked(self, kind: int) -> Any:
        self._contexts.append(ggml.ggml_init(backend._Memory(1 << 14, None, True)))
        made = self._tensor(self._contexts[1], kind, self.weights.shape[::-1])
        buffers = backend._buffer_type(ggml, b"CPU_REPACK")
        self._buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(self._contexts[1], buffers)
        ggml.ggml_backend_tensor_set(made, self.data.tobytes(), 0, self.data.nbytes)
        return made

    def ours(self, threads: int = 2) -> Array:
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
        supports, by_name = ggml.ggml_backend_dev_supports_op, ggml.ggml_backend_dev_by_name
        by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.c_void_p
        supports.argtypes, supports.restype = [ctypes.c_void_p] * 2, ctypes.c_bool
        return bool(supports(by_name(b"ingle"), self.address))


def drawn(rows: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal((count, inputs), np.float32) for count in (rows, outputs))  # type: ignore[return-value]


def as_bytes(rows: Array) -> Array:
    """What rows stand for once they are bytes, with the largest of each 32 numbers at 127."""
    parts = rows.reshape(len(rows), -1, 32)
    most = np.abs(parts).max(-1, keepdims=True)
    whole = np.rint(parts * np.divide(np.float32(127), most, out=0 * most, where=most > 0))
    return np.asarray((whole.astype(np.float64) * (most / np.float32(127))).reshape(rows.shape))


def is_right(node: Node, rows: Array, found: Array) -> bool:
    exact = as_bytes(rows) @ node.weights.astype(np.float64).T
    scale = np.abs(as_bytes(rows)) @ np.abs(node.weights.astype(np.float64)).T
    return bool((np.abs(found - exact) <= 2e-6 * scale + 1e-6).all())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_computes_the_product(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(OURS))
    repacked = kind in REPACKED and data.draw(st.booleans())
    inputs = data.draw(st.integers(1, 4)) * (256 if kind.endswith("K") else 32)
    outputs = data.draw(st.integers(1, 90)) * (8 if repacked else 1)
    rows, weights = drawn(data.draw(st.integers(1 + repacked, 130)), inputs, outputs, data.draw(st.integers(0, 9)))
    rows[data.draw(st.integers(0, len(rows) - 1))] = 0
    with Node(rows, weights, kind, repacked) as node:
        assert node.is_taken
        assert is_right(node, rows, node.ours(data.draw(st.integers(1, 3))))


def computed(rows: Array, weights: Array, kind: str, threads: int = 2) -> Array:
    with Node(rows.copy(), weights, kind) as node:
        return node.ours(threads)


@pytest.mark.parametrize("kind", OURS)
def test_a_row_comes_out_the_same_to_the_bit_whatever_lies_beside_it(kind: str) -> None:
    rows, weights = drawn(64, 512, 80)
    others = np.random.default_rng(9).permutation(rows)
    others[40] = rows[3]
    first = computed(rows, weights, kind)[3]
    assert np.array_equal(first, computed(others, weights, kind, 3)[40])
    assert np.array_equal(first, computed(others[38:43], weights, kind, 1)[2])
    assert np.array_equal(first, computed(rows[3:4], weights, kind)[0])


@pytest.mark.parametrize("byte", [0, 127, 128, 255])
@pytest.mark.parametrize("kind", OURS)
def test_the_largest_numbers_fit(kind: str, byte: int) -> None:
    rows = np.repeat(np.float32([[1], [-1], [1], [-1], [1]]), 256, 1)
    for count in (1, 5):
        with Node(rows[:count].copy(), np.ones((16, 256), np.float32), kind) as node:
            node.fill(byte)
            assert is_right(node, rows[:count], node.ours())


@pytest.mark.parametrize("level", LEVELS[1:], indirect=True)
@pytest.mark.parametrize("kind", OURS)
def test_a_level_comes_to_the_same_as_the_best_to_the_bit(kind: str, level: str) -> None:
    rows, weights = drawn(40, 512, 90)
    found = computed(rows, weights, kind)
    begin("")
    best = computed(rows, weights, kind)
    begin(level)
    assert np.array_equal(found, best)


@pytest.mark.parametrize("kind", REPACKED)
def test_repacked_weights_are_the_same_weights(kind: str) -> None:
    rows, weights = drawn(20, 768, 104)
    with Node(rows, weights, kind) as plain, Node(rows, weights, kind, True) as repacked:
        assert np.array_equal(plain.ours(), repacked.ours())


def test_weights_that_ggml_repacks_otherwise_are_not_read() -> None:
    ours = backend.compiled()
    assert ours is not None
    with Node(*drawn(2, 512, 16), "Q4_K", True) as node:
        tensor = Tensor.from_address(Tensor.from_address(node.address).src[0])
        agree = ours.products_agree
        assert agree(tensor.type, node.data.tobytes(), tensor.data, 512)
        for place in range(0, node.data.nbytes, 97):
            ctypes.c_uint8.from_address(tensor.data + place).value ^= 16
            assert not agree(tensor.type, node.data.tobytes(), tensor.data, 512)
            ctypes.c_uint8.from_address(tensor.data + place).value ^= 16


@pytest.mark.parametrize("kind", ["Q5_1", "Q4_1", "IQ4_NL", "Q2_K"])
def test_other_types_are_left_to_llama_cpp(kind: str) -> None:
    with Node(*drawn(8, 256, 32), kind) as node:
        assert not node.is_taken


@pytest.mark.parametrize("kind", REPACKED)
def test_single_rows_with_repacked_weights_are_left_to_llama_cpp(kind: str) -> None:
    with Node(*drawn(1, 256, 32), kind) as plain, Node(*drawn(1, 256, 32), kind, True) as repacked:
        assert plain.is_taken and not repacked.is_taken


def test_no_rows_are_left_to_llama_cpp() -> None:
    """As the last layer has of a part of a prompt that nothing is written after."""
    with Node(*drawn(1, 256, 32), "Q8_0") as node:
        rows = Tensor.from_address(Tensor.from_address(node.address).src[1])
        rows.ne[1] = 0
        assert not node.is_taken


def test_products_of_several_matrices_are_left_to_llama_cpp() -> None:
    with Node(*drawn(8, 256, 32), "Q8_0") as node:
        tensor = Tensor.from_address(Tensor.from_address(node.address).src[1])
        assert node.is_taken
        tensor.ne[2] = 2
        assert not node.is_taken


def logits(path: Path, tokens: list[int], repack: bool) -> Array:
    model = NativeModel(path, repack=repack)
    context = Context(model, ContextOptions(512, 1, 256, 2, 2, "f16", "on"))
    try:
        outputs = context.decode([Rows(0, 0, tokens, True)])
        return np.array(context.logits(outputs[0]))
    finally:
        context.close()
        model.close()


@pytest.mark.parametrize("count", [1, 120])
@pytest.mark.parametrize("repack", [True, False])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K_M"])
def test_a_model_says_the_same(
    bard_gguf: Mapping[str, Path], tmp_path: Path, kind: str, repack: bool, count: int, level: str
) -> None:
    tokens = [300 + 7 * place % 3000 for place in range(count)]
    path = tmp_path / "model.gguf"
    quantize(bard_gguf["f16"], path, kind)
    ours = logits(path, tokens, repack)
    begin("off")
    try:
        plain = logits(path, tokens, repack)
    finally:
        begin(level)
    taken_by_amx = repack and b"AMX_INT8 = 1" in library().llama_print_system_info()
    assert taken_by_amx or not np.array_equal(ours, plain)
    assert np.abs(ours - plain).max() < 2e-2 * np.abs(plain).max()
