"""The likeliest tokens of a vocabulary, found without sorting it.

The logits are laid in many short columns. As many tokens as wanted lie at or above the largest logits of as many
columns, so all tokens from the last of these up are enough, and mostly not many more: two passes over the vocabulary.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError

NOTHING_BELOW = 104.0
"""Below the best logit, weights are zero in 32 bits."""

FEWEST_COLUMNS = 1024
COLUMNS_EACH = 8  # for each token that is wanted, so that few columns hold two of them
FEW = (256, 4096)
STEPS = 64  # of a logit

Tokens = NDArray[np.intp]


def likeliest(logits: NDArray[np.float32], count: int) -> Tokens:
    """Tokens among which are the ``count`` likeliest, or all that are possible; unordered."""
    highest(logits)
    return _from(logits, _floor(logits, count))


def within(logits: NDArray[np.float32], depth: float) -> Tokens:
    """All tokens at most ``depth`` below the best."""
    return _from(logits, highest(logits) - depth)


def share(logits: NDArray[np.float32], share: float, depth: float = NOTHING_BELOW) -> tuple[Tokens, bool]:
    """The fewest tokens that have ``share`` of the probability together; or, where those reach below ``depth``, all
    down to it. And whether they are in order, the likeliest first: where they are many, that would take longest."""
    best = highest(logits)
    weights = np.exp(logits - np.float32(best))
    needed = share * float(weights.sum())
    for count in FEW:
        floor = max(_floor(logits, count), best - depth)
        tokens = _from(logits, floor)
        if floor == best - depth or float(weights[tokens].sum()) >= needed:
            return _cut(tokens, weights, needed), True
    steps = np.minimum((best - logits) * STEPS, STEPS * NOTHING_BELOW).astype(np.int16)
    weight = np.cumsum(np.bincount(steps, weights))
    last = int(np.searchsorted(weight, needed))
    if last > STEPS * depth:
        return within(logits, depth), False
    sure = np.flatnonzero(steps < last)
    edge = _cut(np.flatnonzero(steps == last), weights, needed - (float(weight[last - 1]) if last else 0.0))
    return np.concatenate([sure, edge]), False


def _cut(tokens: Tokens, weights: NDArray[np.float32], needed: float) -> Tokens:
    """The likeliest of these tokens, in order, until they have the weight that is needed."""
    falling = tokens[np.argsort(-weights[tokens], kind="stable")]
    return falling[: int(np.searchsorted(np.cumsum(weights[falling], dtype=np.float64), needed)) + 1]


def highest(logits: NDArray[np.float32]) -> float:
    """The largest logit.

    Raises:
        EngineError: it, or another, is no number (a broken model); text made of them would be noise.
    """
    best = float(logits.max())
    if not math.isfinite(best):
        raise EngineError(f"the model computed {best} as a logit: its weights are broken or overflow")
    return best


def _floor(logits: NDArray[np.float32], count: int) -> float:
    """A logit that at least ``count`` tokens reach, and not many more."""
    size, columns = len(logits), max(COLUMNS_EACH * count, FEWEST_COLUMNS)
    if count >= size:
        return float(logits.min())
    if 2 * columns <= size:
        rows = size // columns
        logits = logits[: rows * columns].reshape(rows, columns).max(axis=0)
    return float(np.partition(logits, -count)[-count])


def _from(logits: NDArray[np.float32], floor: float) -> Tokens:
    """All possible tokens from ``floor`` up."""
    return np.flatnonzero(logits >= max(floor, float(np.finfo(np.float32).min)))
