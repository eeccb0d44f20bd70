"""How many foretold tokens a step may carry: as many as pay, which mostly is none. Pure Python, knows no model.

A step of several rows takes longer than one of a single row: on a CPU nearly as much longer as it has more rows, up to
eight or so, and less beyond. So short drafts lose and long ones win, if they are right. What steps take is measured as
they are made. How many tokens of a draft will be right is told from how many in a row were foretold so far: after a
streak of ``s``, the next ``i`` are right with probability ``(s + 1) / (s + 1 + i)`` (each length of a copied passage
being as likely as any other, in proportion), and no longer than this sequence's passages were before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

SIZES = (2, 4, 8, 16, 32, 64)
"""Rows of a step with drafts: where the kernels' costs have their steps."""

SUPPOSED: Mapping[int, float] = {1: 1.0, 2: 2.0, 3: 2.8, 4: 3.6, 8: 7.5, 16: 9.0, 32: 14.0, 64: 22.0}
"""What a step of so many rows takes, in steps of one row, where nothing was measured: seen on small CPUs."""

MOST_SEQUENCES = 4
LONGEST_STEP, LONGEST_STEP_S = 12.0, 0.5  # in steps without drafts, and in seconds: the larger
PAYS = 1.15
PATIENCE = 4.0  # tokens' time that a sequence may lose
PATIENCE_SHARE = 0.015  # of its tokens
BEGUN, PASSAGE = 2, 4  # tokens that make a streak worth counting, and a copied passage
KNOWN = 3  # passages after which this sequence's own are believed
WEIGHT = 0.3
REMEMBERED_S = 120.0


@dataclass(eq=False, slots=True)
class Record:
    """How drafts have fared in one sequence. ``balance``: tokens' time won by them, or lost."""

    written: int = 0
    balance: float = 0.0
    begun: int = 0
    passages: int = 0
    copied: int = 0
    streak: int = 0

    def saw(self, streak: int) -> None:
        """A token was written; ``streak`` of them, this one included, were foretold."""
        self.written += 1
        self.begun += streak == BEGUN
        if streak < self.streak and self.streak >= PASSAGE:
            self.passages += 1
            self.copied += self.streak
        self.streak = streak

    @property
    def trusted(self) -> bool:
        return self.balance >= -max(PATIENCE, PATIENCE_SHARE * self.written)

    def expected(self, drafted: int) -> float:
        """Tokens of a draft that will be right."""
        streak = self.streak + 1
        right = sum(streak / (streak + place) for place in range(1, drafted + 1))
        if not self.passages:
            return right
        mean = (self.copied + self.streak) / self.passages
        usual = mean * (1 - (mean / (mean + 1)) ** drafted)
        if self.passages < KNOWN:
            return min(right, usual)
        if self.streak >= PASSAGE:
            return usual
        return usual * self.passages / self.begun if self.streak >= BEGUN else 0.0


@dataclass(eq=False, slots=True)
class Governor:
    """Of one engine: what its steps cost, in the time of a step without drafts."""

    _lone: dict[int, float] = field(default_factory=dict)
    _cost: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def observe(self, sequences: int, rows: int, seconds: float, now: float) -> float:
        """A step of ``sequences`` took so long; returns its cost."""
        if rows == sequences:
            before = self._lone.get(sequences, seconds)
            self._lone[sequences] = before + WEIGHT * (seconds - before)
            return 1.0
        cost = seconds / self._lone.get(sequences, seconds)
        before, _ = self._cost.get((sequences, rows), (cost, now))
        self._cost[sequences, rows] = before + WEIGHT * (cost - before), now
        return cost

    def draft(self, records: list[Record], most: int, now: float) -> int:
        """How many tokens to foretell for each of these sequences, which decode together; 0 is none.

        most: rows that there is room for. Drafts must pay for each sequence by itself, so nobody waits for others'.
        """
        if not self.may_draft(len(records)) or not all(one.trusted for one in records):
            return 0
        gain, drafted = self.best(
            len(records), most, now, lambda each: min(record.expected(each) for record in records)
        )
        return drafted if gain > PAYS else 0

    def may_draft(self, sequences: int) -> bool:
        """Whether so many sequences are few enough, and what their steps cost is known."""
        return 0 < sequences <= MOST_SEQUENCES and sequences in self._lone

    def lone_s(self, sequences: int) -> float:
        """Seconds of a step of so many sequences without drafts; 0 where none was made."""
        return self._lone.get(sequences, 0.0)

    def best(
        self,
        sequences: int,
        most: int,
        now: float,
        expected: Callable[[int], float],
        each_costs: float = 0.0,
        most_cost: float = math.inf,
    ) -> tuple[float, int]:
        """The gain of the best drafts, and how many tokens each has.

        expected: how many of so many drafted tokens will be right. each_costs: to foretell a token, for all sequences,
        in the time of a step without drafts. most_cost: of a step and its drafts, likewise.
        """
        best, drafted = 0.0, 0
        for size in SIZES:
            each = size // sequences - 1
            rows = sequences * (1 + each)
            if each < 1 or rows > most:
                continue
            cost = self.cost(sequences, rows, now) + each * each_costs
            if cost > most_cost or (cost > LONGEST_STEP and cost * self._lone[sequences] > LONGEST_STEP_S):
                break
            gain = (1 + expected(each)) / cost
            if gain > best:
                best, drafted = gain, each
        return best, drafted

    def cost(self, sequences: int, rows: int, now: float) -> float:
        """Of a step of so many rows, measured lately or supposed; no more than more rows take, no less than fewer."""
        measured = {
            size: cost
            for (count, size), (cost, when) in self._cost.items()
            if count == sequences and now - when < REMEMBERED_S
        }
        if rows in measured:
            return measured[rows]
        above = min((cost for size, cost in measured.items() if size > rows), default=math.inf)
        below = max((cost for size, cost in measured.items() if size < rows), default=1.0)
        return max(min(_supposed(rows) / _supposed(sequences), above), below)


def _supposed(rows: int) -> float:
    points = sorted(SUPPOSED.items())
    for (few, cheap), (many, dear) in itertools.pairwise(points):
        if few <= rows <= many:
            return cheap + (dear - cheap) * (rows - few) / (many - few)
    return points[-1][1] * rows / points[-1][0]
