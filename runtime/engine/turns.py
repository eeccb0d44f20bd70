"""Who computes next when several groups of requests cannot share a step: each in turn, for some steps. Pure Python.

An adapter counts for all rows of a step, so requests with different adapters take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

STEPS = 8
"""Steps of a turn while others wait. Changing adapters makes llama.cpp plan its graph again, some milliseconds."""


class Turns:
    """First come, first served: whoever has waited longest is next, and each step puts its group behind all others. So
    a group that waits sees every other one take one turn at most, whoever comes and goes meanwhile."""

    def __init__(self) -> None:
        self._current = 0
        self._steps = 0
        self._clock = itertools.count()
        self._since: dict[int, int] = {}  # of each group: when it was served last, or first seen

    def order(self, groups: Iterable[int]) -> list[int]:
        """The groups, the one that should compute next first."""
        present = dict.fromkeys(groups)
        for group in present:
            if group not in self._since:
                self._since[group] = next(self._clock)
        waiting = sorted(present, key=self._since.__getitem__)
        if self._current in present and self._steps < STEPS:
            waiting.remove(self._current)
            waiting.insert(0, self._current)
        return waiting

    def give_way(self) -> None:
        """The turn ends here: its last step read of a prompt, to be gone on with, while others wait for a token."""
        self._steps = STEPS

    def take(self, group: int) -> None:
        """``group`` computes a step."""
        self._steps = self._steps + 1 if group == self._current and self._steps < STEPS else 1
        self._current = group
        self._since[group] = next(self._clock)
