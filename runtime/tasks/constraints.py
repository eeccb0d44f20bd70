"""What an answer may not, or must, go on with: applied to the scores of the next token, as transformers does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
NEVER = np.float32(-np.inf)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Lengths count the token that an answer starts from. Zero, one and None mean no constraint."""

    max_length: int
    ends: tuple[int, ...]
    min_length: int = 0
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    forced_first: int | None = None
    forced_last: int | None = None
    suppressed: tuple[int, ...] = ()

    def apply(self, tokens: Sequence[int], scores: Array) -> Array:
        """The scores behind ``tokens``, logits or logarithms of probabilities; -inf for what may not come."""
        scores = scores.copy()
        if self.repetition_penalty != 1.0:
            seen = np.unique(np.array(tokens))
            values = scores[seen]
            penalty = np.float32(self.repetition_penalty)
            scores[seen] = np.where(values < 0, values * penalty, values / penalty)
        if self.no_repeat_ngram_size:
            scores[self._repeating(tokens)] = NEVER
        if len(tokens) < self.min_length:
            scores[list(self.ends)] = NEVER
        if self.forced_first is not None and len(tokens) == 1:
            scores = _only(self.forced_first, scores)
        if self.forced_last is not None and len(tokens) == self.max_length - 1:
            scores = _only(self.forced_last, scores)
        if self.suppressed:
            scores[list(self.suppressed)] = NEVER
        return scores

    def _repeating(self, tokens: Sequence[int]) -> list[int]:
        """Tokens that would complete an n-gram which is there already."""
        size = self.no_repeat_ngram_size
        prefix = tuple(tokens[len(tokens) + 1 - size :])
        windows = (tuple(tokens[begin : begin + size]) for begin in range(len(tokens) - size + 1))
        return [window[-1] for window in windows if window[:-1] == prefix]


def _only(token: int, scores: Array) -> Array:
    forced = np.full_like(scores, NEVER)
    forced[token] = 0
    return forced
