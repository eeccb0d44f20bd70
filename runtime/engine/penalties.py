"""What is added to and taken from single logits before a token is drawn: biases, penalties for repetition, DRY.

Only the tokens concerned are touched; llama.cpp's samplers look each token of the vocabulary up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..llama import sampler
from ..llama.sampler import Sampler
from ..llama.vocab import Vocab
from ..request import Sampling

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FEW = 64


class Recent:
    """How often each token stands among the last ``span`` ones."""

    def __init__(self, span: int) -> None:
        self._last: deque[int] = deque(maxlen=span)
        self._forget()

    def add(self, tokens: Sequence[int]) -> None:
        """Tokens that come after all before."""
        for token in tokens:
            if len(self._last) == self._last.maxlen:
                self._counts[self._places[self._last[0]]] -= 1
            self._last.append(token)
            self._count(token, 1)
        if self._known > 2 * len(self._last) + FEW:
            self._forget()
            for token, times in Counter(self._last).items():
                self._count(token, times)

    def counted(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Tokens that are, or were, among them, and how often each is."""
        return self._tokens[: self._known], self._counts[: self._known]

    def _forget(self) -> None:
        self._places: dict[int, int] = {}
        self._known = 0
        self._tokens = np.zeros(FEW, np.int32)
        self._counts = np.zeros(FEW, np.float32)

    def _count(self, token: int, times: int) -> None:
        place = self._places.get(token)
        if place is None:
            place = self._places[token] = self._known
            self._known += 1
            if place == len(self._tokens):
                self._tokens = np.append(self._tokens, np.zeros_like(self._tokens))
                self._counts = np.append(self._counts, np.zeros_like(self._counts))
            self._tokens[place] = token
        self._counts[place] += times


class Penalties:
    """Of one sequence; ``prompt`` is what it begins with. ``sampling`` asks for at least one of them."""

    def __init__(self, sampling: Sampling, vocab: Vocab, window: int, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._biased = np.array(list(sampling.logit_bias), np.int32)
        self._biases = np.array(list(sampling.logit_bias.values()), np.float32)
        self._recent = Recent(look_back(sampling.repeat_last_n, window)) if has_penalties(sampling) else None
        self._dry: Sampler | None = None
        spans = [look_back(sampling.repeat_last_n, window)]
        if sampling.dry_multiplier and (span := look_back(sampling.dry_penalty_last_n, window)):
            self._dry = Sampler(sampler.dry(sampling, vocab, span))
            self._within = Recent(span)
            spans.append(span)
        self.accept(prompt[-max(spans) or len(prompt) :])

    def accept(self, tokens: Sequence[int]) -> None:
        """Tokens that were taken."""
        if self._recent is not None:
            self._recent.add(tokens)
        if self._dry is not None:
            self._within.add(tokens)
            self._dry.accept(tokens)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Change the logits, in place."""
        if len(self._biased):
            logits[self._biased] += self._biases
        if self._recent is not None:
            self._hold_against(logits, *self._recent.counted())
        if self._dry is not None:
            tokens, _ = self._within.counted()
            logits[tokens] = self._dry.adjusted(tokens, logits[tokens])

    def close(self) -> None:
        if self._dry is not None:
            self._dry.close()

    def _hold_against(
        self, logits: NDArray[np.float32], tokens: NDArray[np.int32], counts: NDArray[np.float32]
    ) -> None:
        sampling, found = self._sampling, logits[tokens]
        repeat = np.float32(max(sampling.repeat_penalty, SMALLEST))
        with np.errstate(over="ignore"):
            held = np.where(found <= 0, found * repeat, found / repeat)
        np.minimum(held, np.float32(LARGEST), out=held)  # a penalty near 0 makes a logit large, but no infinity
        held -= counts * np.float32(sampling.frequency_penalty) + np.float32(sampling.presence_penalty)
        logits[tokens] = np.where(counts > 0, held, found)


def look_back(span: int, window: int) -> int:
    """Tokens that a penalty looks back on: none has more than the window."""
    return window if span < 0 else min(span, window)


def has_penalties(sampling: Sampling) -> bool:
    """Whether repeated tokens are held against a candidate."""
    return sampling.repeat_last_n != 0 and (
        sampling.repeat_penalty != 1 or sampling.frequency_penalty != 0 or sampling.presence_penalty != 0
    )
