"""Mixtures of types tried on the real model: loaded piece by piece, run on a text, compared with the source."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert.ggml import GGMLType
from ...quantize.shards import Shards
from ..llama.model import NativeModel
from ..llama.scoring import ScoringContext, ScoringOptions
from ..measure.passage import Passage
from ..measure.scores import FIELDS, Logits, scored
from ..measure.steps import Packing, Step, pack, packing
from ..measure.summary import Distance, Estimate, distance

KLD = FIELDS.index("kld")


@dataclass(frozen=True, slots=True)
class Reading:
    """A text to try mixtures on, cut into steps of the kernels."""

    steps: tuple[Step, ...]
    packing: Packing
    longest: int
    sha256: str

    @classmethod
    def of(cls, passages: Sequence[Passage], vocab_size: int) -> Reading:
        longest = max(len(one.tokens) for one in passages)
        chosen = packing(longest, vocab_size)
        key = hashlib.sha256(repr(chosen).encode())
        for one in passages:
            key.update(repr((one.first, len(one.tokens))).encode() + one.tokens.tobytes())
        return cls(tuple(pack(passages, chosen)), chosen, longest, key.hexdigest())

    @property
    def predictions(self) -> int:
        return sum(len(step.targets) for step in self.steps)

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)


class Trials:
    """Tries mixtures of ``shards`` on one reading. What was tried is kept in ``folder``, and not tried again.

    The source's logits are computed once and kept in memory.

    Raises:
        BadGGUF, LoadFailed: the source cannot be loaded.
    """

    def __init__(self, shards: Shards, reading: Reading, folder: Path, threads: int, pool: Executor) -> None:
        self._shards = shards
        self._reading = reading
        self._threads = threads
        self._pool = pool
        self._kept = folder / f"{reading.sha256[:32]}.jsonl"
        self._base: list[Logits] = []
        self.seconds = 0.0
        self.known = dict(_known(self._kept))

    def kld(self, mix: Mapping[str, GGMLType]) -> Estimate:
        """Mean KL divergence of a mixture from the source, in nats per token."""
        key = _digest(mix)
        if key not in self.known:
            values = self._scores(mix)[:, KLD].astype(np.float64)
            self.known[key] = Estimate(float(values.mean()), float(values.std() / max(1, len(values) - 1) ** 0.5))
            with self._kept.open("a") as file:
                found = self.known[key]
                file.write(json.dumps([key, found.value, found.error]) + "\n")
        return self.known[key]

    def distance(self, mix: Mapping[str, GGMLType]) -> Distance:
        """All figures of a mixture against the source."""
        return distance(self._scores(mix))

    @property
    def predictions(self) -> int:
        """Tokens that are compared."""
        return self._reading.predictions

    def _scores(self, mix: Mapping[str, GGMLType]) -> NDArray[np.float32]:
        parts = self._shards.parts(mix)
        base = self._source()
        began = time.monotonic()
        with self._computed(NativeModel(parts[0], repack=False, parts=parts)) as logits:
            found = [scored(mine, theirs, self._pool) for mine, theirs in zip(logits, base, strict=True)]
        self.seconds = time.monotonic() - began
        return np.concatenate(found)

    def _source(self) -> list[Logits]:
        if not self._base:
            with self._computed(NativeModel(self._shards.source.path, repack=False)) as logits:
                self._base = [Logits(one.step, one.values.copy()) for one in logits]
        return self._base

    @contextmanager
    def _computed(self, model: NativeModel) -> Iterator[Iterator[Logits]]:
        """The logits of each step, each valid until the next."""
        reading = self._reading
        options = ScoringOptions(reading.packing.sequences, reading.longest, reading.packing.rows, self._threads)
        with ExitStack() as stack:
            stack.callback(model.close)
            context = ScoringContext(model, options)
            stack.callback(context.close)
            yield (Logits(step, context.compute(step.spans, fresh=step.fresh)) for step in reading.steps)


def _digest(mix: Mapping[str, GGMLType]) -> str:
    text = "\n".join(f"{name} {mix[name].name}" for name in sorted(mix))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _known(path: Path) -> Iterator[tuple[str, Estimate]]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            key, value, error = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was ended while writing
        yield key, Estimate(value, error)
