"""A model in memory and a context over it that is made when it is needed, and made anew when it is too small."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from ...convert.errors import EngineClosed
from ..llama.model import NativeModel
from ..machine import thread_count


class Closable(Protocol):
    def close(self) -> None: ...


AContext = TypeVar("AContext", bound=Closable)


class Loaded(Generic[AContext]):
    """What every kind of model for tasks has. A context is used under ``_lock``.

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        self.model = NativeModel(path)
        self.threads = threads or thread_count()
        self.closed = False
        self._lock = threading.Lock()
        self._context: AContext | None = None

    @property
    def name(self) -> str:
        return self.model.name

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

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def _require_open(self) -> None:
        if self.closed:
            raise EngineClosed(f"{self.name} is closed")
