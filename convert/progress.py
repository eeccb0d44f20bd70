"""How long work reports itself: one callable, any display."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called often with the bytes (or items) of a stage done so far; ``total`` is 0 while unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The display that shows nothing."""
