"""Beam search over one text: which continuations go on, which are finished. Arithmetic; no model.

As transformers does it, whose results are the measure: twice as many candidates as beams, those that end among the
best leave with their score over ``length ** length_penalty``, the others go on.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
NEVER = np.float32(-1e9)  # a beam that is not there yet


@dataclass(frozen=True, slots=True)
class Rules:
    """max_length: most tokens of an answer, the one it starts from included. early_stopping: True ends as soon as
    there are as many finished answers as beams; False when the best running one is worse than all of them; never when
    no running one can become better."""

    beams: int
    max_length: int
    ends: Collection[int]
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    score: np.float32
    tokens: tuple[int, ...]
    finished: bool


@dataclass(slots=True)
class BeamSearch:
    """One text. tokens: of the running beams, each as long as the others; done: nothing can get better."""

    rules: Rules
    tokens: list[tuple[int, ...]]
    done: bool = False
    _scores: Array = field(init=False)
    _best: list[Hypothesis] = field(init=False)
    _hopeful: bool = True

    def __post_init__(self) -> None:
        beams = self.rules.beams
        self.tokens = self.tokens * beams
        self._scores = np.full(beams, NEVER, np.float32)
        self._scores[0] = 0
        self._best = [Hypothesis(NEVER, (), False)] * beams

    def advance(self, log_probabilities: Array) -> list[int]:
        """Choose among the continuations of all beams, (beams, vocabulary); returns the beam each new one is of."""
        rules, length = self.rules, len(self.tokens[0])
        vocabulary = log_probabilities.shape[1]
        totals = (log_probabilities + self._scores[:, None]).ravel()
        chosen = _highest(totals, max(2, 1 + len(rules.ends)) * rules.beams)
        parents, tokens, scores = chosen // vocabulary, chosen % vocabulary, totals[chosen]
        texts = [(*self.tokens[parent], int(token)) for parent, token in zip(parents, tokens, strict=True)]
        ended = np.isin(tokens, list(rules.ends)) | (length + 1 >= rules.max_length)
        self._finish(texts, scores, ended, length)
        lasting = np.where(ended, scores + NEVER, scores)
        going = _highest(lasting, rules.beams)
        self.tokens = [texts[index] for index in going]
        self._scores = lasting[going]
        self._hopeful = self._hopeful and self._can_improve(length)
        full = all(one.finished for one in self._best) and rules.early_stopping is True
        self.done = not self._hopeful or full or bool(ended.all())
        return [int(parents[index]) for index in going]

    def results(self, count: int = 1) -> list[Hypothesis]:
        """The best answers, the best first."""
        return self._best[:count]

    def _finish(self, texts: list[tuple[int, ...]], scores: Array, ended: NDArray[np.bool_], length: int) -> None:
        rules = self.rules
        full = all(one.finished for one in self._best) and rules.early_stopping is True
        if full or not self._hopeful:
            return
        final = scores / np.float32(length**rules.length_penalty)
        found = [
            Hypothesis(final[index], texts[index], True)
            for index in range(min(rules.beams, len(texts)))
            if ended[index]
        ]
        self._best = sorted([*self._best, *found], key=lambda one: -one.score)[: rules.beams]

    def _can_improve(self, length: int) -> bool:
        """``length``: of the beams before the last token, which is how many tokens they have besides their start."""
        rules = self.rules
        never = rules.early_stopping == "never" and rules.length_penalty > 0
        hoped = self._scores[0] / np.float32((rules.max_length - 1 if never else length) ** rules.length_penalty)
        worst = min(one.score for one in self._best)
        return any(bool(hoped > (worst if one.finished else NEVER)) for one in self._best)


def _highest(values: Array, count: int) -> NDArray[np.int64]:
    """The indices of the highest values, the highest first."""
    count = min(count, len(values))
    found = np.argpartition(-values, count - 1)[:count]
    return np.asarray(found[np.lexsort((found, -values[found]))], np.int64)
