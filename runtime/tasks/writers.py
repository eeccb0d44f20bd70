"""Answers being written: one token after the other, or the best of several beams. What they ask of a context is to
compute their last tokens in their slots, and to copy a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .beams import BeamSearch, Rules
from .constraints import Constraints
from .odds import Odds
from .scores import log_softmax

Array = NDArray[np.float32]
Copy = Callable[[int, int], None]
Answer = tuple[tuple[int, ...], float | None]
"""The tokens, and the score by which beam search ranks them."""


class Writer(Protocol):
    """slots: where it writes. last: the token of each that is to be computed next."""

    slots: Sequence[int]

    @property
    def done(self) -> bool: ...
    @property
    def last(self) -> list[int]: ...
    def advance(self, logits: Array) -> None:
        """Go on by the logits behind the last tokens, (slots, vocabulary)."""

    def results(self, count: int) -> list[Answer]: ...


class Greedy:
    """Always the most probable token."""

    def __init__(self, slot: int, start: int, constraints: Constraints) -> None:
        self.slots: Sequence[int] = (slot,)
        self.done = False
        self._tokens = [start]
        self._constraints = constraints

    @property
    def last(self) -> list[int]:
        return self._tokens[-1:]

    def advance(self, logits: Array) -> None:
        self._tokens.append(self._chosen(self._constraints.apply(self._tokens, logits[0])))
        rules = self._constraints
        self.done = self._tokens[-1] in rules.ends or len(self._tokens) >= rules.max_length

    def results(self, count: int) -> list[Answer]:
        return [(tuple(self._tokens), None)]

    def _chosen(self, scores: Array) -> int:
        return int(np.argmax(scores))


class Sampled(Greedy):
    """A token as often as it is probable."""

    def __init__(
        self, slot: int, start: int, constraints: Constraints, odds: Odds, random: np.random.Generator
    ) -> None:
        super().__init__(slot, start, constraints)
        self._odds, self._random = odds, random

    def _chosen(self, scores: Array) -> int:
        return self._odds.draw(scores, self._random)


class Beams:
    """The best of several answers, each in a slot; a beam that branches is copied into the slot of one that died."""

    def __init__(self, slots: Sequence[int], start: int, rules: Rules, constraints: Constraints, copy: Copy) -> None:
        self.slots = slots
        self._search = BeamSearch(rules, [(start,)])
        self._constraints = constraints
        self._copy = copy

    @property
    def done(self) -> bool:
        return self._search.done

    @property
    def last(self) -> list[int]:
        return [tokens[-1] for tokens in self._search.tokens]

    def advance(self, logits: Array) -> None:
        rows = zip(self._search.tokens, log_softmax(logits), strict=True)
        parents = self._search.advance(np.stack([self._constraints.apply(tokens, row) for tokens, row in rows]))
        if not self.done:
            self.slots = self._moved(parents)

    def results(self, count: int) -> list[Answer]:
        return [(one.tokens, float(one.score)) for one in self._search.results(count)]

    def _moved(self, parents: Sequence[int]) -> list[int]:
        """The slots of the new beams: the first child of a beam stays in its slot, the others are copied."""
        free = [slot for beam, slot in enumerate(self.slots) if beam not in parents]
        stayed: set[int] = set()
        slots = []
        for parent in parents:
            slot = self.slots[parent]
            if slot in stayed:
                target = free.pop()
                self._copy(slot, target)
                slot = target
            stayed.add(slot)
            slots.append(slot)
        return slots
