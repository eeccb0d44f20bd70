"""Steps that compute, beside the next token of a sequence, those that are foretold: by its own text (prompt lookup), or
by a draft model where that says nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from ...convert.errors import IngleError
from ..llama.model import NativeModel
from ..options import LoadOptions
from ..request import Sampling
from .choice import Choice
from .counts import Counts
from .drafter import READY, Drafter
from .governor import Governor
from .lookup import Lookup
from .scheduler import Scheduler
from .sequence import Row, Sequence
from .wager import Wager

LOGITS_BYTES = 16 << 20
"""Most memory for the logits of a step's rows: llama.cpp keeps it."""

log = logging.getLogger("ingle.engine")


class Drafts:
    """Of one engine. Nothing is foretold where cells cannot be taken back (recurrent models).

    drafter: the draft model, which :meth:`close` frees.
    """

    def __init__(
        self, options: LoadOptions, model: NativeModel, window: int, counts: Counts, drafter: Drafter | None = None
    ) -> None:
        self._window = window
        self._on = options.speculate == "auto" and model.can_share_prefix
        self._most = LOGITS_BYTES // (4 * model.vocab.size)
        self._governor = Governor()
        self._counts = counts
        self._drafter = drafter
        self._wager = Wager(drafter.size_bytes / model.size_bytes if drafter else 1.0)
        self._drafted_s = 0.0  # of the draft model for the present step; 0 where the text foretold it

    def lookup(self, asked: Sampling, resolved: Sampling, tokens: list[int]) -> Lookup | None:
        """For a sequence of these tokens. Draws of a given seed are to repeat to the bit, so they are made one by one:
        rows that are computed together round otherwise."""
        repeats = asked.seed is not None and resolved.temperature != 0
        return Lookup(tokens) if self._on and not repeats else None

    def beside(self, rows: list[Row], choices: Mapping[Sequence, Choice], scheduler: Scheduler) -> list[Row]:
        """``rows`` with drafts, where these pay; else none."""
        if not self._on or not rows:
            return []
        each = [choices[row.sequence] for row in rows]
        if any(choice.lookup is None for choice in each):
            return []
        copies = all(choice.lookup is not None and choice.lookup.streak for choice in each)
        if not copies and self._drafter is None:
            return []
        room = min(scheduler.room_for_drafts(rows), self._most)
        if room <= len(rows):
            return []
        fewest = min(self._missing(choice) for choice in each)
        room = min(room, len(rows) * fewest)
        drafts = self._of_text(each, room) if copies else []
        if not drafts and self._drafter is not None:
            drafts = self._of_model(self._drafter, each, room, fewest)
        return [Row(row.sequence, 1 + len(draft), True, tuple(draft)) for row, draft in zip(rows, drafts, strict=False)]

    def none(self, rows: list[Row], seconds: float) -> None:
        """A step without drafts was made."""
        if self._on:
            self._governor.observe(len(rows), len(rows), seconds, 0.0)
            self._wager.rested()

    def draws(self, row: Row, choice: Choice, taken: int) -> None:
        """A token is about to be drawn, ``taken`` of the row's foretold ones having been right."""
        flight, by_model = choice.flight, self._drafted_s > 0
        if not taken:
            flight.drafted_tokens += len(row.draft)
            flight.model_drafted_tokens += len(row.draft) * by_model
        else:
            flight.accepted_tokens += 1
            flight.model_accepted_tokens += by_model

    def fared(self, rows: list[Row], taken: list[int], choices: list[Choice], seconds: float) -> None:
        """A step with drafts was made, from whose rows so many tokens each were taken."""
        computed = sum(row.count for row in rows)
        cost = self._governor.observe(len(rows), computed, seconds, time.monotonic())
        drafted, right = computed - len(rows), sum(taken) - len(rows)
        self._counts.add(drafted_tokens=drafted, accepted_tokens=right, generated_tokens=right)
        for choice, tokens in zip(choices, taken, strict=True):
            if not self._drafted_s:
                choice.record.balance += tokens - cost
        if self._drafted_s:
            self._settle(rows, taken, choices, cost)

    def forget(self, sequence: Sequence) -> None:
        """A sequence ended."""
        if self._drafter is not None:
            self._drafter.forget(sequence)

    def rest(self) -> None:
        """Nothing will be drafted for a while."""
        if self._drafter is not None:
            self._drafter.rest()

    def close(self) -> None:
        drafter, self._drafter = self._drafter, None
        if drafter is not None:
            drafter.close()

    def _of_text(self, choices: list[Choice], room: int) -> list[list[int]]:
        count = self._governor.draft([choice.record for choice in choices], room, time.monotonic())
        self._drafted_s = 0.0
        return [choice.lookup.foretold(count) for choice in choices if choice.lookup is not None] if count else []

    def _of_model(self, drafter: Drafter, choices: list[Choice], room: int, missing: int) -> list[list[int]]:
        """What the draft model foretells, once it has read what the sequences say, a piece between two steps."""
        began = time.monotonic()
        sequences = [choice.sequence for choice in choices]
        if any(sequence.spans for sequence in sequences):  # pictures, which it does not see
            return []
        try:
            for choice in choices:
                if not self._has_read(drafter, choice, choices, missing, began):
                    return []
            count = self._wager.count(self._governor, [choice.odds for choice in choices], room, began)
            drafts = drafter.foretold(sequences, count) if count else []
        except IngleError as error:
            log.warning("the draft model is not asked again: %s", error)
            self.close()
            return []
        if drafts:
            self._drafted_s = time.monotonic() - began
            self._wager.drafting(count, self._drafted_s)
            self._counts.add(draft_model_s=self._drafted_s)
        return drafts

    def _has_read(self, drafter: Drafter, choice: Choice, choices: list[Choice], missing: int, now: float) -> bool:
        """Whether the draft model has read a sequence; if not, it reads some of it, where that is worth its time."""
        sequence = choice.sequence
        if not drafter.knows(sequence):
            length = len(sequence.tokens) - drafter.could_skip(sequence)
            count = self._wager.reads(self._governor, [one.odds for one in choices], length, missing, now)
            if not count:
                return False
            start = 0 if count == length else len(sequence.tokens) - count
            drafter.begin(sequence, start, [one.sequence for one in choices])
        if drafter.behind(sequence) <= READY:
            return True
        began = time.monotonic()
        count = drafter.read(sequence)
        if count:
            seconds = time.monotonic() - began
            self._wager.reading(self._governor, len(choices), count, seconds)
            self._counts.add(draft_model_s=seconds)
        return False

    def _settle(self, rows: list[Row], taken: list[int], choices: list[Choice], cost: float) -> None:
        """What the draft model foretold was verified."""
        for row, choice, tokens in zip(rows, choices, taken, strict=True):
            right, wrong = tokens - 1, int(tokens <= len(row.draft) and choice.sequence.slot >= 0)
            choice.odds.saw(right, wrong)
            self._wager.odds.saw(right, wrong)
        self._counts.add(
            model_drafted_tokens=sum(len(row.draft) for row in rows), model_accepted_tokens=sum(taken) - len(rows)
        )
        self._wager.settle(min(taken) - cost - self._drafted_s / self._governor.lone_s(len(rows)))

    def _missing(self, choice: Choice) -> int:
        """Tokens that the answer may still get."""
        most, room = choice.flight.request.max_tokens, self._window - len(choice.sequence.tokens)
        return room if most is None else min(room, most - choice.generated)
