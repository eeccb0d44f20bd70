"""A model in memory and a context over it that is made when it is needed, and made anew when it is too small."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from ...convert.errors import EngineClosed
from ...convert.progress import Progress
from ..llama.abort import AbortFlag
from ..llama.model import NativeModel
from ..machine import thread_count
from .work import Work, heed


class Closable(Protocol):
    def close(self) -> None: ...


AContext = TypeVar("AContext", bound=Closable)


class Loaded(Generic[AContext]):
    """What every kind of model for tasks has. A context is used in a :meth:`_turn`, and looks at ``_abort``.

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        self.model = NativeModel(path)
        self.threads = threads or thread_count()
        self.closed = False
        self._lock, self._handover = threading.Lock(), threading.Lock()
        self._context: AContext | None = None
        self._abort = AbortFlag()
        self._whose: Progress | None = None  # the work that is being computed

    @property
    def name(self) -> str:
        return self.model.name

    def give_up(self, work: Work) -> None:
        """End ``work`` with :class:`Cancelled`: at once if it is being computed, else when its turn comes."""
        work.give_up()
        with self._handover:
            if self._whose is work:
                self._abort.set()

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        with self._lock:
            self.closed = True
            self._drop_context()
            self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _turn(self, progress: Progress) -> Iterator[None]:
        """The context belongs to the work that reports to ``progress`` while the block runs."""
        with self._lock:
            self._pass_to(progress)
            try:
                heed(progress)
                yield
            finally:
                self._pass_to(None)

    def _pass_to(self, progress: Progress | None) -> None:
        with self._handover:
            self._whose = progress
            self._abort.clear()

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def _require_open(self) -> None:
        if self.closed:
            raise EngineClosed(f"{self.name} is closed")
