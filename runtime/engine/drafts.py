"""Prompt lookup: steps that compute, beside the next token of a sequence, those that its text foretells."""

from __future__ import annotations

import time
from collections.abc import Mapping

from ..llama.model import NativeModel
from ..options import LoadOptions
from ..request import Sampling
from .choice import Choice
from .governor import Governor
from .lookup import Lookup
from .scheduler import Scheduler
from .sequence import Row, Sequence

LOGITS_BYTES = 16 << 20
"""Most memory for the logits of a step's rows: llama.cpp keeps it."""


class Drafts:
    """Of one engine. Nothing is foretold where cells cannot be taken back (recurrent models)."""

    def __init__(self, options: LoadOptions, model: NativeModel, window: int) -> None:
        self._window = window
        self._on = options.speculate == "auto" and model.can_share_prefix
        self._most = LOGITS_BYTES // (4 * model.vocab.size)
        self._governor = Governor()

    def lookup(self, asked: Sampling, resolved: Sampling, tokens: list[int]) -> Lookup | None:
        """For a sequence of these tokens. Draws of a given seed are to repeat to the bit, so they are made one by one:
        rows that are computed together round otherwise."""
        repeats = asked.seed is not None and resolved.temperature != 0
        return Lookup(tokens) if self._on and not repeats else None

    def beside(self, rows: list[Row], choices: Mapping[Sequence, Choice], scheduler: Scheduler) -> list[Row]:
        """``rows`` with drafts, where these pay; else none."""
        if not self._on or not rows:
            return []
        for row in rows:
            lookup = choices[row.sequence].lookup
            if lookup is None or not lookup.streak:
                return []
        room = min(scheduler.room_for_drafts(rows), self._most)
        if room <= len(rows):
            return []
        each = [choices[row.sequence] for row in rows]
        room = min(room, len(rows) * min(self._missing(choice) for choice in each))
        count = self._governor.draft([choice.record for choice in each], room, time.monotonic())
        drafts = [choice.lookup.foretold(count) for choice in each if choice.lookup is not None] if count else []
        return [Row(row.sequence, 1 + len(draft), True, tuple(draft)) for row, draft in zip(rows, drafts, strict=False)]

    def none(self, rows: list[Row], seconds: float) -> None:
        """A step without drafts was made."""
        if self._on:
            self._governor.observe(len(rows), len(rows), seconds, 0.0)

    def fared(self, rows: list[Row], taken: list[int], choices: list[Choice], seconds: float) -> None:
        """A step with drafts was made, from whose rows so many tokens each were taken."""
        computed = sum(row.count for row in rows)
        cost = self._governor.observe(len(rows), computed, seconds, time.monotonic())
        for choice, tokens in zip(choices, taken, strict=True):
            choice.record.balance += tokens - cost

    def _missing(self, choice: Choice) -> int:
        """Tokens that the answer may still get."""
        most, room = choice.flight.request.max_tokens, self._window - len(choice.sequence.tokens)
        return room if most is None else min(room, most - choice.generated)
