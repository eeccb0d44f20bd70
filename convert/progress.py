"""How long work reports itself: one callable, any display."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called often with the bytes (or items) of a stage done so far; ``total`` is 0 while unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


class Turns:
    """The progress of two kinds of work that go on side by side: that of the second is shown when the first is done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._first_is_done = False

    def first(self, stage: str, done: int, total: int) -> None:
        self._first_is_done = done == total
        self._progress(stage, done, total)

    def second(self, stage: str, done: int, total: int) -> None:
        if self._first_is_done:
            self._progress(stage, done, total)


def silent(stage: str, done: int, total: int) -> None:
    """The display that shows nothing."""
