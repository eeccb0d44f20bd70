"""How likely each token is to be drawn: the temperature, and what is cut off before, as transformers does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scores import softmax


@dataclass(frozen=True, slots=True)
class Odds:
    """temperature: above 1 flattens, below 1 sharpens. top_k: only the so many likeliest, and those that tie with the
    last of them; 0 for all. top_p: of these only the likeliest that reach this probability together."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def of(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The tokens that may be drawn and the probability of each; ``scores``: logits, (vocabulary,)."""
        kept = self._highest(scores)
        odds = softmax(scores[kept].astype(np.float64) / self.temperature).astype(np.float64)
        if self.top_p < 1:
            rising = np.argsort(odds, kind="stable")
            below = np.cumsum(odds[rising])[:-1] <= 1 - self.top_p  # the likeliest stays whatever it is
            odds[rising[:-1][below]] = 0
        return kept, odds / odds.sum()

    def draw(self, scores: NDArray[np.float32], random: np.random.Generator) -> int:
        """A token."""
        kept, odds = self.of(scores)
        reached = np.cumsum(odds)
        return int(kept[np.searchsorted(reached, random.random() * reached[-1], side="right")])

    def _highest(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        if not 0 < self.top_k < len(scores):
            return np.arange(len(scores))
        return np.flatnonzero(scores >= np.partition(scores, -self.top_k)[-self.top_k])
