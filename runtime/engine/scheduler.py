"""Who computes what in the next step: arithmetic over token counts. Pure Python, knows no model.

There is no prefill phase and no decode phase. A sequence knows some tokens and has computed some of them; each step
lets the computed count catch up. A sequence one token behind is decoding, one further behind is reading its prompt.
Everybody who decodes is served by each step, and a few rows of prompts go beside them. More than that, enough to fill a
tile of the attention, get a step of their own between two of those: a tile that they shared with decoding sequences
would be computed against the cells of all. So a prompt never holds a running answer up for more than one chunk, which
`pace.py` keeps short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any

from .blocks import Blocks
from .pace import GRAIN, TILE, Pace
from .parked import common_length
from .prefix_cache import Match, Memory, PrefixCache
from .priority import RANK_TOKENS, Yielding
from .sequence import Row, Sequence
from .turns import Turns

HEADROOM_SHARE = 16
"""Of the cells one part in so many stays free when a request starts beside others: their answers grow into it. Without
it, who gave its cells back would come back at once, and take them from the next."""

WORTH_WAITING_FOR = 32
"""Prompt tokens that another request is about to compute, for which a request with the same prefix waits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """cells: of the KV cache; slots: of it; parallel: running sequences; rows: tokens of one step.

    parked_bytes: of ordinary memory, for conversations that left the KV cache.
    """

    cells: int
    slots: int
    parallel: int
    rows: int
    parked_bytes: int = 0


@dataclass(eq=False)
class Scheduler:
    """Waiting and running sequences over one KV cache."""

    limits: Limits
    memory: Memory
    share: bool = True
    pace: Pace = field(default_factory=lambda: Pace(0.0))
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    preempted: int = 0
    blocks: Blocks | None = None
    whole: bool = False
    """Where nothing can be shared: whether copies of whole states are kept."""

    def __post_init__(self) -> None:
        self._held_up = False
        self._free_slots = list(range(self.limits.slots - 1, -1, -1))
        self._turns = Turns()
        self._yielding = Yielding()
        self._steady: list[Row] = []
        self._spare_cells = 0
        self.cache = PrefixCache(
            self.memory,
            max_idle_slots=self.limits.slots - self.limits.parallel,
            max_parked_bytes=self.limits.parked_bytes if self.share or self.whole else 0,
            blocks=self.blocks if self.share else None,
            whole=self.whole,
        )

    @property
    def cells_used(self) -> int:
        return self.cache.cells + sum(sequence.private for sequence in self.running)

    def figures(self) -> dict[str, Any]:
        """Counters and gauges of the engine's statistics, by their names there."""
        return {
            "running": len(self.running),
            "waiting": len(self.waiting),
            "preempted": self.preempted,
            "yielded_steps": self._yielding.steps,
            "kv_used": self.cells_used,
            "parked_bytes": self.cache.parked.bytes,
            "parked_tokens": self.cache.woken_tokens,
            "disk_tokens": self.blocks.restored_tokens if self.blocks else 0,
            "step_s": self.pace.lone_s,
            "prompt_row_s": self.pace.row_s,
        }

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Its tokens, and one more, must fit the cache."""
        self.waiting.append(sequence)

    def schedule(self) -> list[Row]:
        """The rows of the next step: decoding sequences first, then prompts within the budget. May preempt.

        While everybody decodes and nobody comes or goes it is one and the same list, which costs nothing to make.
        """
        if self._steady and not self.waiting and self._spare_cells >= len(self._steady):
            return self._steady
        self._admit()
        while not (rows := self._step_of(self._active()) or self._step_of(self.running)) and len(self.running) > 1:
            self._preempt(self._youngest())  # several wait for cells that nobody else will give back
        return rows

    def unsettle(self) -> None:
        """A running sequence got tokens beside the one that it drew: the next step is another than the last."""
        self._steady = []

    def _active(self) -> list[Sequence]:
        """Who takes part in the next step: not the background while there is a foreground."""
        foreground = [sequence for sequence in self.running if not sequence.gives_way]
        mixed = 0 < len(foreground) < len(self.running)
        return foreground if mixed and self._yielding.yields() else self.running

    def _step_of(self, active: list[Sequence]) -> list[Row]:
        for group in self._turns.order(sequence.group for sequence in active):
            members = [sequence for sequence in active if sequence.group == group and sequence.slot >= 0]
            if rows := self._rows(members):
                self._turns.take(group)
                unread = sum(row.count for row in rows) < sum(sequence.pending for sequence in members)
                owed = self._held_up and any(sequence.decoding for sequence in members)
                if unread and not owed and any(one.decoding for one in active if one.group != group):
                    self._turns.give_way()
                return rows
        return []

    def _rows(self, running: list[Sequence]) -> list[Row]:
        """Of sequences that may share a step. Those who decode wait for a picture or for tiles of a prompt, but not for
        two of them."""
        held_up, self._held_up = self._held_up, False
        may_wait = not held_up or not any(sequence.decoding for sequence in running)
        if may_wait and (picture := self._picture_row(running)):
            self._steady, self._held_up = [], True
            return [picture]
        decoding = self._make_room([sequence for sequence in running if sequence.decoding])
        rows = [Row(sequence, 1, True) for sequence in decoding]
        free_cells = self.limits.cells - self.cells_used
        if len(rows) == len(self.running):
            self._steady, self._spare_cells = rows, free_cells
            return rows
        self._steady = []
        if rows and not may_wait:
            return rows
        running = [sequence for sequence in running if sequence.slot >= 0]  # one of them may just have made room
        reading = sorted((sequence for sequence in running if not sequence.decoding), key=self._distance)
        unread = sum(sequence.pending for sequence in reading)
        self._free(len(rows) + min(self.limits.rows, unread))
        most = min(self.limits.rows, self.limits.cells - self.cells_used - len(rows))
        waited_for = sum(not sequence.gives_way for sequence in self.running if sequence.decoding)
        budget = self.pace.prompt_rows(waited_for, most, reading[0].readable if reading else 0)
        beside = min(self.limits.rows, TILE - 1) - len(rows)
        if budget < TILE and beside >= GRAIN - 1:
            budget = min(budget, beside)
        prompts = self._prompt_rows(reading, budget)
        if not prompts or sum(row.count for row in prompts) <= beside:
            return rows + prompts
        self._held_up = True
        return prompts

    def _picture_row(self, running: list[Sequence]) -> Row | None:
        for sequence in running:
            span = sequence.span
            if span is not None and self.cells_used + span.count <= self.limits.cells:
                return Row(sequence, span.count, span.count == sequence.pending)
        return None

    def room_for_drafts(self, rows: list[Row]) -> int:
        """How many rows a step may have in the place of ``rows``; 0 where these are not all that there is to do."""
        return min(self.limits.rows, self._spare_cells) if rows is self._steady else 0

    def advance(self, rows: list[Row]) -> None:
        """The rows were computed."""
        self._spare_cells -= len(rows)
        for row in rows:
            sequence = row.sequence
            sequence.computed += row.count
            if self._sharing(sequence) and sequence.committed < sequence.num_prompt:
                self._commit(sequence, min(sequence.computed, sequence.num_prompt))
            elif self.whole and sequence.computed == sequence.num_prompt:
                self.cache.keep_state(sequence.slot, sequence.keys(0, sequence.computed))

    def restart(self, sequence: Sequence) -> None:
        """Take a running sequence's cells away; it goes back to the head of the queue with all its tokens."""
        self._leave(sequence)
        self._free_slots.append(self.cache.drop(sequence.slot))
        sequence.slot, sequence.computed, sequence.committed = -1, 0, 0
        self.waiting.appendleft(sequence)
        self.preempted += 1

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's cells away, but for a copy in ordinary memory, if that has room: then it goes on
        where it was."""
        if self._sharing(sequence):
            self._commit(sequence, sequence.computed)
            self.memory.remove(sequence.slot, sequence.committed)
            self.cache.keep_copy(sequence.slot)
        elif self.whole:
            self.cache.keep_state(sequence.slot, sequence.keys(0, sequence.computed))
        self.restart(sequence)

    def finish(self, sequence: Sequence) -> None:
        """The sequence ends, complete or cancelled: what it computed stays for later prompts."""
        if sequence not in self.running:
            self.waiting.remove(sequence)
            return
        self._leave(sequence)
        if self._sharing(sequence):
            self._commit(sequence, sequence.computed)
        elif self.whole:
            self.cache.keep_state(sequence.slot, sequence.keys(0, sequence.computed))
        self.memory.remove(sequence.slot, sequence.committed)
        self._free_slots += self.cache.retire(sequence.slot)
        sequence.slot = -1

    def check(self) -> None:
        """Raise RuntimeError if slots or cells do not add up."""
        self.cache.check()
        taken = {sequence.slot for sequence in self.running} | set(self.cache.idle_slots)
        if sorted([*taken, *self._free_slots]) != list(range(self.limits.slots)):
            raise RuntimeError(f"slots {taken} taken and {self._free_slots} free are not {self.limits.slots}")
        for sequence in self.running:
            if self.cache.length(sequence.slot) != sequence.committed:
                raise RuntimeError(f"slot {sequence.slot} committed {sequence.committed}, the tree has another count")
        if self.cells_used > self.limits.cells:
            raise RuntimeError(f"{self.cells_used} cells are used of {self.limits.cells}")

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._steady = []

    def _admit(self) -> None:
        """Start waiting sequences, in order, while slots and cells last; one that waits for a prefix is passed over."""
        for sequence in sorted(self.waiting, key=lambda waiting: waiting.rank):
            if self._sharing(sequence) and self._prefix_is_coming(sequence):
                continue
            while len(self.running) >= self.limits.parallel or not self._start(sequence):
                if not self._push_background_out(sequence):
                    return

    def _push_background_out(self, sequence: Sequence) -> bool:
        """Let the youngest background work make room for a sequence of another rank; False if there is none."""
        if sequence.gives_way or not (background := [other for other in self.running if other.gives_way]):
            return False
        self._preempt(background[-1])
        return True

    def _start(self, sequence: Sequence) -> bool:
        if not self._has_room(sequence):
            return False
        match = self._longest_match(sequence.keys(0, -1)) if self._sharing(sequence) else Match()
        match = Match(sequence.whole(match.length), match.slot)
        slot = self._take_slot()
        self.cache.adopt(slot, sequence.keys(0, match.length), match)
        self._free_slots += self.cache.park_unused()
        if not self._reserve(len(sequence.tokens) - match.length + len(self.running) + 1 + self._headroom()):
            self._free_slots.append(self.cache.drop(slot))
            return False
        self.waiting.remove(sequence)
        sequence.slot = slot
        sequence.computed = sequence.committed = match.length
        if self.whole:
            sequence.computed = self.cache.wake_state(slot, sequence.keys(0, -1))
        if sequence.cached is None:
            sequence.cached = min(sequence.computed, sequence.num_prompt)
        self.running.append(sequence)
        return True

    def _longest_match(self, prefix: Tokens[int]) -> Match:
        """What the KV cache holds of ``prefix``, once what is kept elsewhere, and more of it, was brought back."""
        match = self.cache.match(prefix)
        length, conversation = self.cache.parked.longest(prefix)
        stored = self.blocks.length(prefix) if self.blocks else 0
        if max(length, stored) < match.length + WORTH_WAITING_FOR:
            return match
        self._free_slots += self.cache.park_unused()
        if stored > length and self._reserve(stored):
            self._free_slots += self.cache.fetch(self._take_slot(), list(prefix[:stored]))
        elif conversation is not None and self._reserve(len(conversation.tokens)):
            self._free_slots += self.cache.wake(self._take_slot(), conversation, length)
        return self.cache.match(prefix)

    def rest(self) -> int:
        """Let go of all cells while nobody runs; returns how many tokens of conversations are lost with that."""
        freed, lost = self.cache.leave()
        self._free_slots += freed
        return lost

    def keep_one(self) -> bool:
        """Copy one block of an idle conversation for the disk; False where all are."""
        return self.cache.blocks is not None and self.cache.blocks.save_one()

    def _sharing(self, sequence: Sequence) -> bool:
        return self.share and sequence.shares

    def _take_slot(self) -> int:
        if not self._free_slots:
            self._free_slots.append(self.cache.drop(self.cache.idle_slots[0]))
        return self._free_slots.pop()

    def _has_room(self, sequence: Sequence) -> bool:
        """Whether a sequence fits beside those that run, once all idle conversations were gone."""
        shared = self.cache.length_in_use(sequence.keys(0, -1)) if self._sharing(sequence) else 0
        taken = self.cache.cells_in_use + sum(other.private + other.pending for other in self.running)
        needed = len(sequence.tokens) - shared + len(self.running) + 1 + self._headroom()
        return taken + needed <= self.limits.cells

    def _headroom(self) -> int:
        """Cells that stay free for the answers of others, while there are others."""
        return self.limits.cells // HEADROOM_SHARE if self.running else 0

    def _reserve(self, cells: int) -> bool:
        """Whether ``cells`` can be promised beside what running prompts still need, letting idle ones go for it."""
        promised = sum(sequence.pending for sequence in self.running)
        return self._free(cells + promised)

    def _free(self, cells: int) -> bool:
        missing = cells - (self.limits.cells - self.cells_used)
        if missing > 0:
            self._free_slots += self.cache.evict(missing)
        return self.limits.cells - self.cells_used >= cells

    def _prefix_is_coming(self, sequence: Sequence) -> bool:
        """Whether a running sequence is about to compute enough tokens that this one can then share."""
        prefix = sequence.keys(0, -1)
        reading = [
            other
            for other in self.running
            if other.computed < other.num_prompt and other.realm == sequence.realm and other.shares
            if sequence.gives_way or not other.gives_way
        ]
        known = self.cache.match(prefix).length if reading else 0
        for other in reading:
            coming = min(common_length(other.keys(), prefix), other.num_prompt)
            if coming - max(known, other.computed) >= WORTH_WAITING_FOR:
                return True
        return False

    def _make_room(self, decoding: list[Sequence]) -> list[Sequence]:
        """The decoding sequences that can go on: without a free cell for each, the youngest of the lowest priority
        gives its cells back."""
        while decoding and not self._free(len(decoding)):
            youngest = self._youngest()
            self._preempt(youngest)
            decoding = [sequence for sequence in decoding if sequence is not youngest]
        return decoding[: self.limits.rows]

    def _youngest(self) -> Sequence:
        """Of the lowest priority."""
        return max(reversed(self.running), key=lambda running: running.rank)

    def _prompt_rows(self, reading: list[Sequence], budget: int) -> list[Row]:
        """Shares of ``budget`` for prompts, the one nearest to its end first; being passed over brings one nearer.

        Where a prompt comes to its end the step is a short one: others get only what fills a tile of the attention.
        """
        rows: list[Row] = []
        for sequence in reading:
            count = min(sequence.readable, budget)
            if count < sequence.pending and any(row.output for row in rows):
                count = min(count, -sum(row.count for row in rows) % TILE)
            sequence.skipped = 0 if count > 0 else sequence.skipped + 1
            if count > 0:
                rows.append(Row(sequence, count, count == sequence.pending))
                budget -= count
        return rows

    def _distance(self, prompt: Sequence) -> int:
        return prompt.pending - prompt.skipped * self.limits.rows + prompt.rank * RANK_TOKENS

    def _commit(self, sequence: Sequence, end: int) -> None:
        tokens = sequence.keys(sequence.committed, end)
        sequence.committed += self.cache.extend(sequence.slot, sequence.committed, tokens)
