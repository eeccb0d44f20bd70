"""Who computes next when several groups of requests cannot share a step: each in turn, for some steps. Pure Python.

An adapter counts for all rows of a step, so requests with different adapters take turns.
"""

from __future__ import annotations

from collections.abc import Iterable

STEPS = 8
"""Steps of a turn while others wait. Changing adapters makes llama.cpp plan its graph again, some milliseconds."""


class Turns:
    """Round robin over the groups that are there. A group that stays is reached before any that came later has had
    two turns."""

    def __init__(self) -> None:
        self._current = 0
        self._steps = 0

    def order(self, groups: Iterable[int]) -> list[int]:
        """The groups, the one that should compute next first."""
        present = list(dict.fromkeys(groups))
        if self._current not in present:
            return present
        place = present.index(self._current) + (self._steps >= STEPS)
        return present[place:] + present[:place]

    def take(self, group: int) -> None:
        """``group`` computes a step."""
        self._steps = self._steps + 1 if group == self._current and self._steps < STEPS else 1
        self._current = group
