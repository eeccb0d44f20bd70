"""The threads of the kernels of one engine: where they run, and how many while others want the same cores.

The kernels meet at a barrier after every node, so that one thread that shares its core with another process halves the
speed of all. Where the cores do not give what the threads ask of them, one fewer is tried for some steps, and kept
while that is quicker; from time to time one more is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from ..llama.context import Context
from ..llama.threads import KernelThreads
from ..request import ModelInfo
from .choice import Choice
from .counts import Counts
from .info import core_groups

CROWDED = 0.85
"""Of the time of all threads, which the cores gave: below it others are on them. Waiting threads spin, which counts."""

STEPS = 8  # that tell how long one takes
QUICKER = 0.95
SOON_S, LATE_S = 1.0, 8.0
"""Until a number of threads that was no better is tried again: longer each time."""

STALE_S = 1.0
"""After which nobody knows any more how crowded it is: a prompt that is read for longer has all threads again."""


@dataclass(eq=False, slots=True)
class Crowd:
    """How many threads decode, of ``most``; ``kept``: but for a trial. Pure arithmetic over what steps took."""

    most: int
    threads: int = 0
    kept: int = 0
    _rows: int = 0
    _usual_s: float = 0.0
    _not_before: float = 0.0
    _wait_s: float = SOON_S
    _seconds: list[float] = field(default_factory=list)
    _shares: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.threads = self.kept = self.most

    def observe(self, rows: int, seconds: float, cpu_s: float, now: float) -> int:
        """A step of so many rows was made; returns how many threads the next one has."""
        if rows != self._rows:
            self._rows = rows
            self.settle(self.kept)
            return self.threads
        self._seconds.append(seconds)
        self._shares.append(cpu_s / (seconds * self.threads))
        if len(self._seconds) == STEPS:
            self._decide(median(self._seconds), median(self._shares), now)
        return self.threads

    def settle(self, threads: int) -> None:
        """Go on with so many, and know nothing of them yet."""
        self.threads = self.kept = threads
        self._forget()

    def _decide(self, step_s: float, share: float, now: float) -> None:
        tried, self._usual_s = self._usual_s, step_s
        self._forget()
        if self.threads != self.kept:  # a trial is over
            better = step_s < QUICKER * tried
            self._wait_s = SOON_S if better else min(2 * self._wait_s, LATE_S)
            self._not_before = now + (0.0 if better and self.threads > self.kept else self._wait_s)
            self.settle(self.threads if better else self.kept)
        elif now >= self._not_before:
            if share < CROWDED and self.threads > 1:
                self.threads -= 1
            elif self.threads < self.most:
                self.threads += 1

    def _forget(self) -> None:
        self._seconds, self._shares = [], []


class Crew:
    """``context``: whose steps they compute. Made and used by the engine's thread."""

    def __init__(self, info: ModelInfo, context: Context) -> None:
        cores = core_groups(info)
        self._placing = KernelThreads(cores)
        self._crowd = Crowd(info.threads) if cores else None
        self._context = context
        self._repeats = False
        self._watched = 0.0

    def prepare(self, choices: Iterable[Choice]) -> None:
        """The next step is another than the one before, so no trial goes on in it. Answers with a seed, which are to
        repeat to the bit, are computed by all threads: attention adds up in as many parts as there are threads."""
        self._repeats = any(choice.flight.request.sampling.seed is not None for choice in choices)
        crowd = self._crowd
        if crowd is None:
            return
        before, stale = crowd.threads, time.monotonic() - self._watched > STALE_S
        crowd.settle(crowd.most if self._repeats or stale else crowd.kept)
        if crowd.threads != before:
            self._use(crowd.threads)

    def settle(self) -> None:
        """A step was made, for which the threads were started if they were not there."""
        self._placing.settle()

    def watch(self, rows: int, counts: Counts) -> None:
        """A step like the one before was made."""
        self._placing.settle()
        crowd = self._crowd
        if crowd is None or self._repeats:
            return
        before, self._watched = crowd.threads, time.monotonic()
        threads = crowd.observe(rows, counts.seconds, counts.cpu_s, self._watched)
        if threads != before:
            self._use(threads)

    def _use(self, threads: int) -> None:
        self._context.use_threads(threads)
        self._placing.use(threads)
