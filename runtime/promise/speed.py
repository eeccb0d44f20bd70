"""How long a weight of each type takes on this CPU: measured once, in a small model of that type alone."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert import gguf
from ...convert.files import appearing
from ...convert.ggml import TYPES, GGMLType
from ...quantize import blocks
from ..llama.calibration import ANSWER_TOKENS, PROMPT_TOKENS
from ..llama.context import Context, ContextOptions, Rows
from ..llama.kernels import kept_path
from ..llama.model import NativeModel

WIDTH, FEED_FORWARD, LAYERS, VOCABULARY = 1024, 3072, 2, 256
CHUNK, STEPS = 128, 12
DISTINCT_ROWS = 8

MATRICES: Mapping[str, tuple[int, int]] = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (FEED_FORWARD, WIDTH),
    "ffn_up": (FEED_FORWARD, WIDTH),
    "ffn_down": (WIDTH, FEED_FORWARD),
}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of a turn of a chat, by weight and type. rates: of one value of a matrix; active: values that a token meets."""

    rates: Mapping[GGMLType, float]
    active: Mapping[str, int]

    def __call__(self, name: str, element: GGMLType) -> float:
        return self.active[name] * self.rates[element]


def seconds_per_weight(elements: Sequence[GGMLType], threads: int) -> dict[GGMLType, float]:
    """By type: of a turn of a chat (512 tokens read, 192 written), for each weight of a matrix. Kept for this CPU."""
    kept = kept_path("types", repr((threads, PROMPT_TOKENS, ANSWER_TOKENS)))
    known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    missing = [element for element in elements if element.name not in known]
    if missing:
        # A thread of its own: libgomp's pool ends with it.
        with ThreadPoolExecutor(1, "ingle-types") as worker:
            for element in missing:
                known[element.name] = worker.submit(_measured, element, threads).result()
        with appearing(kept) as partial:
            partial.write_text(json.dumps(known))
    return {element: known[element.name] for element in elements}


def _measured(element: GGMLType, threads: int) -> float:
    with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
        path = Path(folder, "probe.gguf")
        gguf.write(path, _metadata(), _plans(element))
        model = NativeModel(path)
        try:
            return _turn(model, threads) / (LAYERS * sum(rows * width for rows, width in MATRICES.values()))
        finally:
            model.close()


def _turn(model: NativeModel, threads: int) -> float:
    """The quickest of several: others on the machine only ever make it slower."""
    context = Context(model, ContextOptions(4 * CHUNK, 1, CHUNK, threads, threads, "f16", "off"))
    try:
        prompt = min(_seconds(context, at, CHUNK) for at in range(0, 3 * CHUNK, CHUNK)) / CHUNK
        answer = min(_seconds(context, 3 * CHUNK + step, 1) for step in range(STEPS))
    finally:
        context.close()
    return PROMPT_TOKENS * prompt + ANSWER_TOKENS * answer


def _seconds(context: Context, at: int, count: int) -> float:
    began = time.perf_counter()
    context.decode([Rows(0, at, [token % VOCABULARY for token in range(count)], True)])
    return time.perf_counter() - began


def _metadata() -> Mapping[str, gguf.Value]:
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "no_vocab",
        "llama.context_length": 4 * CHUNK,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": WIDTH // 64,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.dimension_count": 64,
        "llama.vocab_size": VOCABULARY,
    }


def _plans(element: GGMLType) -> Iterator[gguf.TensorPlan]:
    random = np.random.default_rng(0)
    plain = TYPES["F32"]
    for name in ("token_embd", "output"):
        yield _plan(name, (VOCABULARY, WIDTH), plain, random.standard_normal((VOCABULARY, WIDTH), np.float32))
    yield _plan("output_norm", (WIDTH,), plain, np.ones(WIDTH, np.float32))
    with ThreadPoolExecutor(1) as pool:
        rows = {width: _rows(element, width, random, pool) for width in (WIDTH, FEED_FORWARD)}
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            yield _plan(f"blk.{layer}.{norm}", (WIDTH,), plain, np.ones(WIDTH, np.float32))
        for name, shape in MATRICES.items():
            values = np.resize(rows[shape[1]], (shape[0], rows[shape[1]].shape[1]))
            yield _plan(f"blk.{layer}.{name}", shape, element, values)


def _rows(element: GGMLType, width: int, random: np.random.Generator, pool: ThreadPoolExecutor) -> NDArray[np.uint8]:
    """A few rows, which are repeated: what is computed does not matter, only how."""
    noise = random.standard_normal((DISTINCT_ROWS, width), np.float32) / np.float32(width**0.5)
    return blocks.encode(noise, element, np.ones(width, np.float32), pool)


def _plan(name: str, shape: tuple[int, ...], element: GGMLType, values: NDArray[np.generic]) -> gguf.TensorPlan:
    return gguf.TensorPlan(f"{name}.weight", shape, element, lambda: [values])
