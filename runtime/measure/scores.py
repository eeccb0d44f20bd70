"""What logits say of the tokens that really came: surprise, and the distance from another model's logits."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .steps import Step

F32 = NDArray[np.float32]

FIELDS = ("nll", "nll_base", "kld", "delta_p", "same_top")
BLOCK_BYTES = 4 << 20


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
    blocks = list(_blocks(len(logits.step.targets), logits.values.shape[1]))
    parts = pool.map(lambda block: _block(logits, base, block), blocks)
    return np.concatenate([np.zeros((0, len(FIELDS)), np.float32), *parts])


def _blocks(count: int, vocab_size: int) -> Iterator[slice]:
    height = max(1, BLOCK_BYTES // (4 * vocab_size))
    return (slice(start, min(start + height, count)) for start in range(0, count, height))


def _block(logits: Logits, base: Logits | None, block: slice) -> F32:
    targets = logits.step.targets[block]
    rows = logits.step.rows[block]
    found = np.zeros((len(targets), len(FIELDS)), np.float32)
    mine = _log_softmax(logits.values[rows])
    index = np.arange(len(targets))
    found[:, 0] = -mine[index, targets]
    if base is None:
        return found
    theirs = _log_softmax(base.values[rows])
    chances = np.exp(theirs)
    found[:, 1] = -theirs[index, targets]
    found[:, 3] = np.exp(-found[:, 0]) - np.exp(-found[:, 1])
    found[:, 4] = mine.argmax(axis=1) == theirs.argmax(axis=1)
    theirs -= mine
    theirs *= chances
    found[:, 2] = theirs.sum(axis=1, dtype=np.float64)
    return found


def _log_softmax(logits: F32) -> F32:
    """Over the last axis; the sum of exponentials in f64."""
    shifted: F32 = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    shifted -= np.log(total).astype(np.float32)
    return shifted
