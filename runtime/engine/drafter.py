"""A draft model: a small one of the same vocabulary, which foretells what the engine's own then verifies.

It has a context of its own and reads in it what the sequences say. What it foretold is computed there, too; where a
sequence went on otherwise those cells are let go. Sequences that ended leave their cells until others need them: the
next turn of a conversation goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..llama.context import Context, ContextOptions, Rows
from ..llama.model import NativeModel
from .governor import MOST_SEQUENCES
from .parked import common_length
from .sequence import Sequence

READ_ROWS = 64
"""Tokens that it reads between two steps of the engine."""

READY = 8
"""Tokens of a sequence that it may still have to read when it begins to foretell."""


def context_for_drafts(options: ContextOptions) -> ContextOptions:
    """A draft model's context beside that of ``options``."""
    return replace(options, sequences=MOST_SEQUENCES, rows=READ_ROWS, spare=False)


@dataclass(eq=False, slots=True)
class Slot:
    """``tokens`` from place ``start`` of a text lie in the cache; the first ``sure`` of them are the owner's."""

    number: int
    tokens: list[int] = field(default_factory=list)
    start: int = 0
    sure: int = 0
    owner: Sequence | None = None
    used: int = 0

    def missing(self, text: list[int]) -> int:
        """Tokens of its owner's text that are not there: one at least, whose logits tell the next."""
        end = min(len(self.tokens), len(text) - 1 - self.start)
        while self.sure < end and self.tokens[self.sure] == text[self.start + self.sure]:
            self.sure += 1
        return len(text) - self.start - self.sure


class Drafter:
    """Owns the model and its context. Used by the engine's thread only.

    cells: tokens that it holds for all sequences. vocabulary: tokens that both models have, from 0 on.
    """

    def __init__(self, model: NativeModel, options: ContextOptions, vocabulary: int) -> None:
        self._model = model
        self._context = Context(model, options)
        self._cells = options.cells
        self._vocabulary = vocabulary
        self._slots = [Slot(number) for number in range(options.sequences)]
        self._steps = 0

    def close(self) -> None:
        self._context.close()
        self._model.close()

    @property
    def size_bytes(self) -> int:
        """Of its weights."""
        return self._model.size_bytes

    def rest(self) -> None:
        """Give the cache back until the next :meth:`begin`."""
        for slot in self._slots:
            self._empty(slot)
        self._context.close()

    def knows(self, sequence: Sequence) -> bool:
        """Whether it has begun to read a sequence."""
        return any(slot.owner is sequence for slot in self._slots)

    def begin(self, sequence: Sequence, start: int, others: list[Sequence]) -> None:
        """Read a sequence from its token ``start`` on, in the place of one that is none of ``others``. What somebody
        read before, who began with the same tokens, is not read again.

        Raises:
            LoadFailed: there is no memory for the cache, which was given back before.
        """
        self._context.open()
        free = [slot for slot in self._slots if slot.owner is None or slot.owner not in others]
        slot = min(free, key=lambda one: (-self._common(one, sequence), one.used))
        if start or not self._common(slot, sequence):
            slot = min(free, key=lambda one: (one.owner is not None, bool(one.tokens), one.used))
            self._empty(slot)
            slot.start = start
        slot.owner, slot.sure = sequence, 0
        self._steps += 1
        slot.used = self._steps

    def could_skip(self, sequence: Sequence) -> int:
        """Tokens of a sequence that somebody read before."""
        return max(self._common(slot, sequence) for slot in self._slots)

    def forget(self, sequence: Sequence) -> None:
        """A sequence ended."""
        for slot in self._slots:
            if slot.owner is sequence:
                slot.owner = None

    def behind(self, sequence: Sequence) -> int:
        """Tokens of a sequence that it has begun with, and not read yet."""
        return self._slot(sequence).missing(sequence.tokens)

    def read(self, sequence: Sequence) -> int:
        """Read some of what it is behind; returns how many tokens. Raises :class:`EngineError`."""
        slot, text = self._slot(sequence), sequence.tokens
        count = min(slot.missing(text) - 1, READ_ROWS)
        self._cut(slot)
        begin = slot.start + len(slot.tokens)
        tokens = text[begin : begin + count]
        if not self._make_room(count):
            return 0
        self._context.decode([Rows(slot.number, len(slot.tokens), tokens, False)])
        slot.tokens += tokens
        return count

    def foretold(self, sequences: list[Sequence], count: int) -> list[list[int]]:
        """The likeliest next ``count`` tokens of each sequence; none where the cache has no room.

        Raises:
            EngineError: llama.cpp failed.
        """
        slots = [self._slot(sequence) for sequence in sequences]
        missing = [slot.missing(sequence.tokens) for slot, sequence in zip(slots, sequences, strict=True)]
        for slot in slots:
            self._cut(slot)
        if not self._make_room(sum(missing) + count * len(slots)):
            return []
        rows = [
            Rows(slot.number, len(slot.tokens), sequence.tokens[-few:], True)
            for slot, sequence, few in zip(slots, sequences, missing, strict=True)
        ]
        outputs = self._context.decode(rows)
        for slot, row in zip(slots, rows, strict=True):
            slot.tokens += row.tokens
        steps = [[self._likeliest(outputs[slot.number]) for slot in slots]]
        for _ in range(count - 1):
            steps.append(self._next(slots, steps[-1]))
        return [list(tokens) for tokens in zip(*steps, strict=True)]

    def _next(self, slots: list[Slot], tokens: list[int]) -> list[int]:
        rows = [Rows(slot.number, len(slot.tokens), (token,), True) for slot, token in zip(slots, tokens, strict=True)]
        outputs = self._context.decode(rows)
        for slot, token in zip(slots, tokens, strict=True):
            slot.tokens.append(token)
        return [self._likeliest(outputs[slot.number]) for slot in slots]

    def _likeliest(self, index: int) -> int:
        return int(np.argmax(self._context.logits(index)[: self._vocabulary]))

    def _slot(self, sequence: Sequence) -> Slot:
        return next(slot for slot in self._slots if slot.owner is sequence)

    def _common(self, slot: Slot, sequence: Sequence) -> int:
        """Tokens of a text that a slot without a start of its own holds."""
        return 0 if slot.start else common_length(slot.tokens, sequence.tokens[:-1])

    def _cut(self, slot: Slot) -> None:
        """Let go of what its owner does not say."""
        if len(slot.tokens) > slot.sure:
            self._context.remove(slot.number, slot.sure)
            del slot.tokens[slot.sure :]
        self._steps += 1
        slot.used = self._steps

    def _empty(self, slot: Slot) -> None:
        self._context.remove(slot.number)
        slot.tokens, slot.start, slot.sure, slot.owner = [], 0, 0, None

    def _make_room(self, cells: int) -> bool:
        """Whether there are so many free cells, once those of ended sequences are."""
        ended = sorted((slot for slot in self._slots if slot.owner is None), key=lambda slot: slot.used)
        for slot in ended:
            if self._free_cells >= cells:
                break
            self._empty(slot)
        return self._free_cells >= cells

    @property
    def _free_cells(self) -> int:
        return self._cells - sum(len(slot.tokens) for slot in self._slots)
