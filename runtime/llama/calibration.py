"""Which layout of the weights and which attention is the fastest here: measured once, in a probe of a few layers.

llama.cpp repacks weights for the CPU and uses flash attention unless told otherwise. Either may cost speed: on some
CPUs our products read weights as they lie in the file several times as fast as llama.cpp's read them repacked, and
flash attention reads one row against a long cache at half the speed of the matrix products on some and faster on
others. So both are tried, on a model made of the first layers of the file, and what was found is kept for this CPU,
build, number of threads and file.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert import gguf
from ...convert.errors import IngleError, StorageError
from ...convert.files import appearing
from ...convert.ggml import TYPES
from .. import machine
from .context import Context, ContextOptions, Rows
from .kernels import kept_path
from .metadata import integer
from .model import NativeModel

PLAIN = frozenset({"llama", "qwen2", "qwen3"})
"""Architectures whose layers are all alike, so that a model of the first few is one."""

WORTH_MEASURING_BYTES = 32 << 20
MOST_PROBE_BYTES = 96 << 20
LAYERS = 2
VOCABULARY = 64
CHUNK = 128
DEPTH = 512
STEPS = 8
LIMIT_S = 1.4
MOST_SPREAD = 1.3
"""Of the median step by the quickest: beyond it the cores were somebody else's, and the figures mean nothing."""

CLEARLY = 0.95
"""Weights that are repacked take memory beside the file, and time at each load: no less than this makes it worth it."""

WARMTH = 1.15
"""A probe of two layers stays in the CPU's caches, which flatters the matrix products that read the KV cache twice:
13 % quicker there, and 6 to 15 % slower in the whole model. Only what flash attention loses beyond that is believed."""

PROMPT_TOKENS, ANSWER_TOKENS = 512, 192
"""The turn of a chat that a way is judged by."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute, with the seconds of a prompt's and of an answer's token in the probe."""

    repack: bool
    flash_attention: bool
    prompt_s: float
    answer_s: float

    @property
    def turn_s(self) -> float:
        """Of a turn in a whole model's layers, as far as the probe tells."""
        measured = PROMPT_TOKENS * self.prompt_s + ANSWER_TOKENS * self.answer_s
        return measured if self.flash_attention else WARMTH * measured


def fastest(ways: list[Way], flash_attention: bool | None = None) -> Way | None:
    """The way with the quickest turn, ``flash_attention`` given where that is decided; None without ways.

    Weights are left as they are in the file unless it is clearly quicker with them repacked.
    """
    allowed = [way for way in ways if flash_attention in (None, way.flash_attention)]
    plain = min((way for way in allowed if not way.repack), key=lambda way: way.turn_s, default=None)
    best = min(allowed, key=lambda way: way.turn_s, default=None)
    return plain if plain and best and best.turn_s > CLEARLY * plain.turn_s else best


def ways(path: Path, threads: int, kv_type: str) -> list[Way]:
    """What was measured for a file like this, now or earlier; empty where nothing can or need be.

    A file that cannot be read has none either: whoever loads it will say why.
    """
    facts = path.stat() if path.is_file() else None
    if facts is None or facts.st_size < WORTH_MEASURING_BYTES:
        return []
    kept = kept_path("ways", repr((machine.cpu_name(), threads, kv_type, str(path), facts.st_size, facts.st_mtime_ns)))
    if kept.exists():
        return [Way(**way) for way in json.loads(kept.read_text())]
    try:
        file = gguf.read(path)
        names = _probe_tensors(file)
    except IngleError:
        return []
    if not names:
        return []
    # A thread of its own: libgomp's pool ends with it, and does not crowd that of the engine.
    with ThreadPoolExecutor(1, "ingle-calibration") as worker:
        found = worker.submit(_measure, file, names, threads, kv_type).result()
    if not found:
        return []  # the machine was busy, or the layers are large: tried again next time
    try:
        with appearing(kept) as partial:
            partial.write_text(json.dumps([asdict(way) for way in found]))
    except StorageError:
        return found  # measured again next time
    return found


def _measure(file: gguf.GGUF, names: list[str], threads: int, kv_type: str) -> list[Way]:
    """All four ways; none where they take too long, others disturb them, or the probe is not a model after all."""
    deadline = time.monotonic() + LIMIT_S
    found = []
    try:
        with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
            probe = Path(folder, "probe.gguf")
            gguf.write(probe, _metadata(file, names), _plans(file, names))
            for repack in (True, False):
                model = NativeModel(probe, repack=repack)
                try:
                    for flash_attention in (True, False):
                        found.append(_time(model, repack, flash_attention, threads, kv_type, deadline))
                finally:
                    model.close()
    except (IngleError, TimeoutError):
        return []
    return found


def _time(model: NativeModel, repack: bool, flash_attention: bool, threads: int, kv_type: str, deadline: float) -> Way:
    attention = "on" if flash_attention else "off"
    context = Context(model, ContextOptions(2 * DEPTH, 1, CHUNK, threads, threads, kv_type, attention))
    try:
        prompt = [_seconds(context, at, CHUNK, deadline) for at in range(0, DEPTH, CHUNK)]
        answer = [_seconds(context, DEPTH + step, 1, deadline) for step in range(STEPS)]
    finally:
        context.close()
    if sorted(answer)[STEPS // 2] > MOST_SPREAD * min(answer):
        raise TimeoutError
    return Way(repack, flash_attention, min(prompt[1:]) / CHUNK, min(answer[1:]))


def _seconds(context: Context, at: int, count: int, deadline: float) -> float:
    if time.monotonic() > deadline:
        raise TimeoutError
    began = time.perf_counter()
    context.decode([Rows(0, at, [token % VOCABULARY for token in range(count)], True)])
    return time.perf_counter() - began


def _probe_tensors(file: gguf.GGUF) -> list[str]:
    """Names of the tensors of the first layers and of the norm behind the last; none for other architectures."""
    arch = file.metadata.get("general.architecture")
    if arch not in PLAIN or f"{arch}.expert_count" in file.metadata or "split.count" in file.metadata:
        return []
    for layers in range(min(LAYERS, integer(file.metadata, f"{arch}.block_count", 0)), 0, -1):
        blocks = tuple(f"blk.{layer}." for layer in range(layers))
        names = [name for name in file.tensors if name.startswith(blocks)]
        if sum(file.tensors[name].nbytes for name in names) <= MOST_PROBE_BYTES:
            return [*names, "output_norm.weight"]
    return []


def _numbers(file: gguf.GGUF) -> dict[str, gguf.Value]:
    """The architecture's own metadata, which is short and decides what is computed."""
    arch = f"{file.metadata['general.architecture']}."
    values = {key: value for key, value in file.metadata.items() if key.startswith(arch)}
    return {key: value for key, value in values.items() if not isinstance(value, list | np.ndarray)}


def _metadata(file: gguf.GGUF, names: list[str]) -> Mapping[str, gguf.Value]:
    arch = str(file.metadata["general.architecture"])
    layers = len({name.split(".")[1] for name in names if name.startswith("blk.")})
    return {
        "general.architecture": arch,
        "tokenizer.ggml.model": "no_vocab",
        **_numbers(file),
        f"{arch}.block_count": layers,
        f"{arch}.vocab_size": VOCABULARY,
    }


def _plans(file: gguf.GGUF, names: list[str]) -> Iterator[gguf.TensorPlan]:
    width = file.tensors["output_norm.weight"].shape[0]
    for name in ("token_embd.weight", "output.weight"):
        yield gguf.TensorPlan(name, (VOCABULARY, width), TYPES["F32"], lambda: [_noise(width)])
    for name in names:
        info = file.tensors[name]
        yield gguf.TensorPlan(name, info.shape, info.type, lambda name=name: [file.tensor(name)])  # type: ignore[misc]


def _noise(width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((VOCABULARY, width), np.float32)
