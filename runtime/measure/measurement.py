"""Measure models on a text: how well each predicts it, and how far each is from a base that runs beside it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import InputError
from ...convert.progress import Progress, silent
from ..llama.model import NativeModel
from ..llama.scoring import ScoringContext, ScoringOptions
from ..machine import thread_count
from ..store import places
from . import passage
from .ledger import Ledger
from .passage import Material
from .scores import FIELDS, Logits, scored
from .steps import Packing, Step, pack, packing
from .summary import Distance, Estimate, distance, perplexity
from .wish import Wish, loaded

F32 = NDArray[np.float32]
TOKENIZER_KEYS = ("general.architecture", "ingle.tokenizer.", "tokenizer.")


@dataclass(frozen=True, slots=True)
class Measured:
    """One model. bits_per_weight counts all its tensors; tokens_per_second is the reading speed of this run, None where
    all of it had been computed by an earlier one."""

    path: Path
    size_bytes: int
    bits_per_weight: float
    tokens_per_second: float | None
    perplexity: Estimate
    distance: Distance | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """sha256: of the file ``on``. left_over: its tokens behind the last whole chunk, which took no part."""

    on: Path
    sha256: str
    passages: int
    tokens: int
    predictions: int
    left_over: int
    base: Path | None
    models: tuple[Measured, ...]


def measure(
    models: Sequence[Path], wish: Wish, *, against: Path | None = None, progress: Progress = silent
) -> Measurement:
    """Measure each of ``models``, all side by side: each step is computed by the base and by every model, compared,
    and forgotten. A run that was interrupted goes on where it was when it is asked for again.

    Raises:
        InputError: the text is of no use, or base and model have different vocabularies.
        UnsupportedModel: a model that predicts no next tokens. BadGGUF, LoadFailed: it cannot be loaded.
    """
    with ExitStack() as stack:
        threads = wish.threads or thread_count()
        natives = {path: loaded(path, stack) for path in dict.fromkeys([*([against] if against else []), *models])}
        first = next(iter(natives.values()))
        material = passage.read(wish.on, first, wish.length, wish.most)
        for model in natives.values():
            _require_same_reading(first, model, wish, material)
        chosen = packing(material.longest, first.vocab.size)
        options = ScoringOptions(chosen.sequences, material.longest, chosen.rows, threads)
        reader = {path: _Reader(model, options, stack) for path, model in natives.items()}
        ledger = Ledger(_ledger_path(list(natives), material, chosen), len(models) * len(FIELDS))
        stack.callback(ledger.close)
        base = reader[against] if against else None
        run = _Run(base, [reader[path] for path in models], stack.enter_context(ThreadPoolExecutor(threads)))
        scores = run.all(material, list(pack(material.passages, chosen)), ledger, progress)
        found = tuple(
            _measured(natives[path], reader[path], scores[:, at], against is not None) for at, path in enumerate(models)
        )
        ledger.finish()
    return Measurement(
        on=wish.on,
        sha256=material.sha256,
        passages=len(material.passages),
        tokens=material.tokens,
        predictions=material.predictions,
        left_over=material.left_over,
        base=against,
        models=found,
    )


class _Reader:
    """A model that computes steps, and how long it took."""

    def __init__(self, model: NativeModel, options: ScoringOptions, stack: ExitStack) -> None:
        self._context = ScoringContext(model, options)
        stack.callback(self._context.close)
        self._tokens = 0
        self._seconds = 0.0

    def read(self, step: Step) -> Logits:
        started = time.monotonic()
        values = self._context.compute(step.spans, fresh=step.fresh)
        self._seconds += time.monotonic() - started
        self._tokens += step.tokens
        return Logits(step, values)

    @property
    def tokens_per_second(self) -> float | None:
        return self._tokens / self._seconds if self._tokens else None


@dataclass(frozen=True, slots=True)
class _Run:
    """One pass over the steps."""

    base: _Reader | None
    models: Sequence[_Reader]
    pool: Executor

    def all(self, material: Material, steps: Sequence[Step], ledger: Ledger, progress: Progress) -> F32:
        """The scores, (tokens, models, fields)."""
        ends = np.cumsum([len(step.targets) for step in steps])
        done = int(np.searchsorted(ends, ledger.rows, side="right"))
        while done < len(steps) and not steps[done].fresh:  # what a long passage began is not in any cache
            done -= 1
        parts = [ledger.begin(int(ends[done - 1]) if done else 0)]
        tokens = sum(step.tokens for step in steps[:done])
        progress("measure", tokens, material.tokens)
        for step in steps[done:]:
            parts.append(self.step(step).reshape(len(step.targets), len(self.models) * len(FIELDS)))
            ledger.append(parts[-1])
            tokens += step.tokens
            progress("measure", tokens, material.tokens)
        return np.concatenate(parts).reshape(material.predictions, len(self.models), len(FIELDS))

    def step(self, step: Step) -> F32:
        """(tokens, models, fields)."""
        base = self.base.read(step) if self.base else None
        found = []
        for model in self.models:
            logits = base if base and model is self.base else model.read(step)
            found.append(scored(logits, base, self.pool))
        return np.stack(found, axis=1)


def _require_same_reading(first: NativeModel, other: NativeModel, wish: Wish, material: Material) -> None:
    """The logits of two models can be compared when every token means the same in both."""
    if _tokenizer(first) == _tokenizer(other):
        return
    same = first.vocab.size == other.vocab.size and _tokens(first) == _tokens(other)
    if same:
        theirs = passage.read(wish.on, other, wish.length or None, wish.most)
        same = len(theirs.passages) == len(material.passages) and all(
            np.array_equal(mine.tokens, its.tokens)
            for mine, its in zip(material.passages, theirs.passages, strict=True)
        )
    if not same:
        raise InputError(
            f"{first.path} and {other.path} read texts as different tokens: their predictions cannot be compared",
            hint="measure a model against the file that it was quantized from",
        )


def _tokenizer(model: NativeModel) -> object:
    """All that decides how passages are read; where it is the same a text need not be read again to find out."""
    metadata = {key: value for key, value in model.metadata.items() if key.startswith(TOKENIZER_KEYS)}
    return model.vocab.size, model.context_trained, *((key, _comparable(metadata[key])) for key in sorted(metadata))


def _comparable(value: object) -> object:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _tokens(model: NativeModel) -> object:
    return model.metadata.get("tokenizer.ggml.tokens")


def _ledger_path(paths: Sequence[Path], material: Material, packing: Packing) -> Path:
    """Named by everything that the scores depend on."""
    key = hashlib.sha256(repr((FIELDS, packing)).encode())
    for path in paths:
        status = path.stat()
        key.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
    for one in material.passages:
        key.update(repr((len(one.tokens), one.first)).encode())
        key.update(one.tokens.tobytes())
    return places.home() / "measuring" / f"{key.hexdigest()[:32]}.scores"


def _measured(model: NativeModel, reader: _Reader, scores: F32, compared: bool) -> Measured:
    weights = model.parameters
    return Measured(
        path=model.path,
        size_bytes=model.path.stat().st_size,
        bits_per_weight=8 * model.size_bytes / weights if weights else math.nan,
        tokens_per_second=reader.tokens_per_second,
        perplexity=perplexity(scores),
        distance=distance(scores) if compared else None,
    )
