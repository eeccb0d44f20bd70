"""Whose turn it is where not all can compute: interactive before normal requests, background work last.

Pure Python. Interactive and normal requests share every step; an interactive prompt is only read sooner. Background
work gives way altogether: a row of it would cost those who wait for their tokens as much as one of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ...convert.errors import BadRequest
from ..request import Priority

INTERACTIVE, NORMAL, BACKGROUND = range(3)
RANKS: Mapping[Priority, int] = MappingProxyType(
    {"interactive": INTERACTIVE, "normal": NORMAL, "background": BACKGROUND}
)

RANK_TOKENS = 4096
"""By how many tokens a prompt of one rank seems longer than one of the rank above."""

PATIENCE = 64
"""Steps that background work lets pass before one is its own, too, so that it gets on beside endless streams."""


def rank(priority: str) -> int:
    """Raise :class:`BadRequest` for a priority that there is not."""
    for name, number in RANKS.items():
        if name == priority:
            return number
    raise BadRequest(f"priority is {priority!r}; it must be {', '.join(RANKS)}"[:200], param="priority")


class Yielding:
    """How long background work has let others compute."""

    def __init__(self) -> None:
        self.steps = 0
        self._passed = 0

    def yields(self) -> bool:
        """Whether it does so in the next step, too."""
        self._passed += 1
        if self._passed > PATIENCE:
            self._passed = 0
            return False
        self.steps += 1
        return True
