"""A proof made beside the work: of the metadata of a file while its tensors are being written."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from ..convert import pipeline
from ..convert.gguf import Value

Plain = Callable[[], AbstractContextManager[Path]]
"""A file of the same conversion that is not quantized, there while the block runs."""
Prove = Callable[[Path, Plain], Mapping[str, Any]]


class _NotWanted(BaseException):
    """Ends a proof whose file will not be."""


class Proving:
    """``prove`` in a thread of its own while the block runs; nothing where it is None.

    What it asks ``plain`` for has to wait until the tensors are written, for memory, disk and processors are taken. The
    thread of the block makes it then, so that an interruption finds the file and removes it.
    """

    def __init__(self, prove: Prove | None, file: Path, plain: Plain) -> None:
        self._prove, self._file, self._plain = prove, file, plain
        self._wishes: queue.SimpleQueue[bool] = queue.SimpleQueue()  # for a file and, later, its end; False at the end
        self._files: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._found: Mapping[str, Any] = {}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ingle-proof", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.put(None)

    def require_sound(self) -> None:
        """Raise what it has found wrong so far."""
        if self._failure is not None:
            raise self._failure

    def found(self) -> dict[str, Value]:
        """The tensors are written: the key of the proof, once the rest of it is made. Raises what it found wrong."""
        while self._wishes.get():
            with self._plain() as path:
                self._files.put(path)
                self._wishes.get()
        self.require_sound()
        return pipeline.proof(self._found) if self._prove else {}

    def _run(self) -> None:
        try:
            if self._prove is not None:
                self._found = self._prove(self._file, self._later)
        except BaseException as error:  # raised where it is waited for
            self._failure = error
        self._wishes.put(False)

    @contextlib.contextmanager
    def _later(self) -> Iterator[Path]:
        self._wishes.put(True)
        path = self._files.get()
        if path is None:
            raise _NotWanted
        try:
            yield path
        finally:
            self._wishes.put(True)
