"""What logits say of the tokens that really came: surprise, and the distance from another model's logits."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .steps import Step

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FIELDS = ("nll", "nll_base", "kld", "delta_p", "same_top")
TASK_ROWS = 16
CACHED_BYTES = 256 << 10
"""Of a few rows of logits: they and what is computed from them stay in a core's cache."""

LANES = 256


@dataclass(frozen=True, slots=True)
class Logits:
    """The logits of one step of a model, (logits, vocabulary), and what the scores of any model need of them."""

    step: Step
    values: F32


def scored(logits: Logits, base: Logits | None, pool: Executor) -> NDArray[np.float32]:
    """One row per predicted token, (tokens, len(FIELDS)); without a ``base`` only ``nll`` is not zero.

    nll: -ln of the probability of the token. kld: Kullback-Leibler divergence KL(base || model) in nats over the whole
    vocabulary. delta_p: the token's probability minus the base's. same_top: 1 where both have the same likeliest token.
    """
    found = np.zeros((len(logits.step.targets), len(FIELDS)), np.float32)
    tasks = [slice(start, start + TASK_ROWS) for start in range(0, len(found), TASK_ROWS)]
    list(pool.map(lambda task: _score(logits, base, task, found[task]), tasks))
    return found


def _score(logits: Logits, base: Logits | None, task: slice, found: F32) -> None:
    """A few rows at a time, in memory that is used again and again."""
    rows, targets = logits.step.rows[task], logits.step.targets[task]
    vocab_size = logits.values.shape[1]
    height = max(1, CACHED_BYTES // (4 * vocab_size))
    mine, theirs = _Distributions(height, vocab_size), _Distributions(height, vocab_size)
    for start in range(0, len(rows), height):
        few = slice(start, start + height)
        part = found[few]
        mine.see(logits.values, rows[few])
        part[:, 0] = mine.surprise(targets[few])
        if base is not None:
            theirs.see(base.values, rows[few])
            part[:, 1] = theirs.surprise(targets[few])
            part[:, 2] = theirs.divergence_from(mine)
            part[:, 3] = np.exp(-part[:, 0]) - np.exp(-part[:, 1])
            part[:, 4] = mine.top == theirs.top


class _Distributions:
    """What rows of logits say, up to ``height`` at a time. Their sums are taken in f64."""

    def __init__(self, height: int, vocab_size: int) -> None:
        self._memory = np.empty((2, height, vocab_size), np.float32)

    def see(self, logits: F32, rows: NDArray[np.intp]) -> None:
        """The ``rows`` of ``logits``; what was seen before is forgotten."""
        self._shifted, self._powers = self._memory[:, : len(rows)]
        self.top = np.empty(len(rows), np.intp)
        for index, row in enumerate(rows):
            self.top[index] = logits[row].argmax()
            np.subtract(logits[row], logits[row, self.top[index]], out=self._shifted[index])
        np.exp(self._shifted, out=self._powers)
        self._total = _sums(self._powers)

    def surprise(self, tokens: NDArray[np.int32]) -> F64:
        """-ln of the probability of one token each."""
        found: F64 = np.log(self._total) - self._shifted[np.arange(len(tokens)), tokens]
        return found

    def divergence_from(self, other: _Distributions) -> F64:
        """KL(these || others), row by row. Nothing else can be asked of these rows afterwards."""
        self._shifted -= other._shifted
        self._shifted *= self._powers
        found: F64 = _sums(self._shifted) / self._total + np.log(other._total / self._total)
        return found


def _sums(values: F32) -> F64:
    """Of each row: sums of ``LANES`` parts in f32, which is fast, and of these in f64, which is exact enough."""
    height, width = values.shape
    whole = width // LANES * LANES
    lanes = values[:, :whole].reshape(height, -1, LANES).sum(axis=1)
    found: F64 = lanes.sum(axis=1, dtype=np.float64) + values[:, whole:].sum(axis=1, dtype=np.float64)
    return found
