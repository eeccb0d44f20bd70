"""Somebody's work for a task, which may be given up while it is done."""

from __future__ import annotations

import threading

from ...convert.errors import Cancelled
from ...convert.progress import Progress, silent


class Work:
    """A :data:`Progress` that ends the work that reports to it, once it was told to."""

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress
        self._given_up = threading.Event()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.heed()
        self._progress(stage, done, total)

    def give_up(self) -> None:
        self._given_up.set()

    def heed(self) -> None:
        """Raise :class:`Cancelled` if it was given up."""
        if self._given_up.is_set():
            raise Cancelled("cancelled")


def heed(progress: Progress) -> None:
    """Raise :class:`Cancelled` if ``progress`` is work that was given up: to be called in whatever takes long."""
    if isinstance(progress, Work):
        progress.heed()
