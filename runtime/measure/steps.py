"""Passages packed into steps of the kernels: several short ones side by side, a long one in several steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..llama.scoring import Span
from .passage import Passage

ROWS = 2048
"""Tokens of a step, as many as llama-perplexity computes at once: its rounding and ours are then the same."""

MOST_LOGITS_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the kernels. fresh: nothing computed before belongs to these sequences.

    rows: which of the step's logits predict a token of the passage; targets: those tokens.
    """

    spans: tuple[Span, ...]
    fresh: bool
    rows: NDArray[np.intp]
    targets: NDArray[np.int32]

    @property
    def tokens(self) -> int:
        return sum(len(span.tokens) for span in self.spans)


@dataclass(frozen=True, slots=True)
class Packing:
    """rows: most tokens of a step; sequences: most passages side by side."""

    rows: int
    sequences: int


def packing(longest: int, vocab_size: int) -> Packing:
    """For passages of up to ``longest`` tokens. Steps are smaller where a large vocabulary makes logits large."""
    affordable = max(64, MOST_LOGITS_BYTES // (4 * vocab_size))
    rows = min(ROWS, 1 << (affordable.bit_length() - 1))
    return Packing(rows, max(1, rows // longest))


def pack(passages: Sequence[Passage], packing: Packing) -> Iterator[Step]:
    """All steps, in order."""
    group: list[Passage] = []
    for passage in passages:
        if len(passage.tokens) > packing.rows:
            yield from _together(group)
            group = []
            yield from _apart(passage, packing.rows)
            continue
        if len(group) == packing.sequences or sum(len(one.tokens) for one in (*group, passage)) > packing.rows:
            yield from _together(group)
            group = []
        group.append(passage)
    yield from _together(group)


def _together(group: Sequence[Passage]) -> Iterator[Step]:
    if group:
        yield _step([(slot, passage, 0, len(passage.tokens)) for slot, passage in enumerate(group)])


def _apart(passage: Passage, rows: int) -> Iterator[Step]:
    length = len(passage.tokens)
    for start in range(0, length, rows):
        yield _step([(0, passage, start, min(start + rows, length))])


def _step(parts: Sequence[tuple[int, Passage, int, int]]) -> Step:
    spans, rows, targets, row = [], [], [], 0
    for slot, passage, start, stop in parts:
        spans.append(Span(slot, start, passage.tokens[start:stop], passage.first))
        first = max(start, passage.first)
        last = min(stop, len(passage.tokens) - 1)  # the last token has no next one to predict
        rows.append(np.arange(row, row + max(0, last - first)))
        targets.append(passage.tokens[first + 1 : max(first, last) + 1])
        row += max(0, stop - first)
    return Step(tuple(spans), parts[0][2] == 0, np.concatenate(rows), np.concatenate(targets))
