"""What a model takes of the memory, beside what was foretold, beside the bound, and beside llama-server.

Resident memory is that of the engine's process while it writes an answer, after its cache has been filled to the last
cell but a few: until then, pages that were foretold are not there yet, and while nobody asks some are given back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from ingle.runtime import LoadOptions, Model
from ingle.runtime.request import ModelInfo

from .facts import context_length, vocabulary
from .finding import Finding
from .make_model import make
from .peers import llama_server

MOST_WRONG = 0.10
MOST_BESIDE_BYTES = 90e6
MOST_OF_PEER = 0.65
ANSWER_TOKENS = 16
QUIET_S = 2.0
"""After an answer, in which both sides may give back what they like."""


@dataclass(frozen=True)
class Case:
    """A file, and how it is loaded."""

    path: Path
    options: LoadOptions

    @property
    def name(self) -> str:
        parts = [self.path.stem, f"{self.options.kv_cells} cells of {self.options.kv_type}"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Taken:
    """Bytes resident when the cache is full, and what of it are conversations that rest in ordinary memory."""

    info: ModelInfo
    full: int
    parked: int


CASES: Sequence[tuple[str, str, LoadOptions]] = (
    ("smollm-135m", "Q8_0", LoadOptions(context_length=2048, kv_cells=4096, repack="off", flash_attention="off")),
    ("smollm-135m", "Q4_0", LoadOptions(context_length=2048, kv_cells=2048, repack="on", flash_attention="on")),
    ("qwen2.5-0.5b", "Q4_0", LoadOptions(context_length=2048, kv_cells=2048, repack="on", flash_attention="off")),
    ("qwen2.5-0.5b", "Q4_K_M", LoadOptions(context_length=2048, kv_cells=2048, repack="off", kv_type="q8_0")),
    ("gemma-3-270m", "Q8_0", LoadOptions(context_length=2048, kv_cells=4096)),
    ("lfm2-350m", "Q8_0", LoadOptions(context_length=2048, kv_cells=2048, parallel=8)),
    ("mixtral-tiny", "Q8_0", LoadOptions(context_length=2048, kv_cells=2048, repack="off")),
)
"""Shapes and types that differ in all that the memory depends on: width and size of the vocabulary, sliding windows,
recurrent layers, experts, repacked weights, quantized caches, scores of attention."""

PEER_CASES = (("smollm-135m", "Q4_0"), ("qwen2.5-0.5b", "Q4_0"))


def findings(folder: Path, peer: Path | None) -> list[Finding]:
    cases = [Case(make(folder, shape, kind), options) for shape, kind, options in CASES]
    compared = [make(folder, shape, kind) for shape, kind in PEER_CASES] if peer else []
    return [
        *(wrong(case, measured(case)) for case in cases),
        *(finding for path in compared if peer for finding in beside_peer(peer, path)),
    ]


def wrong(case: Case, taken: Taken) -> Finding:
    assert taken.info.footprint is not None
    foretold = taken.info.footprint.total + taken.parked
    detail = f"{foretold / 1e6:.0f} MB foretold ({taken.parked / 1e6:.0f} parked), {taken.full / 1e6:.0f} MB resident"
    return Finding(f"estimate of {case.name}: error", abs(foretold / taken.full - 1), MOST_WRONG, detail=detail)


def measured(case: Case) -> Taken:
    with loaded(case) as (model, process):
        fill(model, case.options.kv_cells or model.info.kv_cells)
        time.sleep(QUIET_S)
        answer = model.generate([300] * ANSWER_TOKENS, max_tokens=ANSWER_TOKENS, ignore_eos=True)
        resident = [process.memory_info().rss for _ in answer]
        return Taken(model.info, max(resident), model.stats().parked_bytes)


@contextlib.contextmanager
def loaded(case: Case) -> Iterator[tuple[Model, psutil.Process]]:
    before = set(psutil.Process().children())
    with Model.load(case.path, options=case.options, isolation="process") as model:
        (engine,) = set(psutil.Process().children()) - before
        yield model, engine


def fill(model: Model, cells: int) -> None:
    """Use every cell, by prompts of a window each, then by as many as are computed at once, which have windows of their
    own in layers that slide, and then write as many answers."""
    window, parallel = min(model.info.context_length, cells), model.info.parallel
    ask(model, cells // window, window - ANSWER_TOKENS)
    ask(model, parallel, cells // parallel - ANSWER_TOKENS)
    ask(model, parallel, ANSWER_TOKENS)


def ask(model: Model, count: int, length: int) -> None:
    """Prompts of ``length`` tokens at once, that share no prefix."""
    prompts = [[(300 + index + token) % model.info.vocabulary for token in range(length)] for index in range(count)]
    streams = [model.generate(prompt, max_tokens=ANSWER_TOKENS - 1, ignore_eos=True) for prompt in prompts]
    for stream in streams:
        stream.text()


def beside_peer(binary: Path, model: Path) -> list[Finding]:
    """After load and first tokens: over file and cache, and by llama-server's; with the same window and repacked
    weights, and as each is by itself."""
    window = min(4096, context_length(model))
    alike = LoadOptions(context_length=window, kv_cells=window, repack="on")
    beside, ours = after_first_tokens(Case(model, alike))
    _, ours_alone = after_first_tokens(Case(model, LoadOptions()))
    theirs = peer_after_first_tokens(binary, model, "-c", str(window))
    theirs_alone = peer_after_first_tokens(binary, model)
    detail = f"{ours / 1e6:.0f} MB, llama-server {theirs / 1e6:.0f} MB"
    alone = f"{ours_alone / 1e6:.0f} MB, llama-server {theirs_alone / 1e6:.0f} MB"
    return [
        Finding(f"{model.stem}, repacked: resident over file and cache", beside, MOST_BESIDE_BYTES, "bytes"),
        Finding(
            f"{model.stem}, {window} cells: resident by llama-server's", ours / theirs, MOST_OF_PEER, detail=detail
        ),
        Finding(f"{model.stem}, defaults: resident by theirs", ours_alone / theirs_alone, MOST_OF_PEER, detail=alone),
    ]


def after_first_tokens(case: Case) -> tuple[int, int]:
    """Bytes over file and cache, and all that are resident in the engine's process."""
    with loaded(case) as (model, process):
        for _ in model.generate(list(range(300, 332)), max_tokens=ANSWER_TOKENS, ignore_eos=True):
            pass
        time.sleep(QUIET_S)
        resident = process.memory_info().rss
        return resident - case.path.stat().st_size - model.info.kv_bytes, resident


def peer_after_first_tokens(binary: Path, model: Path, *flags: str) -> int:
    with llama_server(binary, model, vocabulary(model), "-t", "2", *flags) as theirs:
        theirs.complete(theirs.fresh_tokens(32), ANSWER_TOKENS)
        time.sleep(QUIET_S)
        return int(theirs.process.memory_info().rss)
