"""The scores of a measurement that is not finished, on disk: a run that was stopped goes on where it was."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import StorageError, StoreBusy


class Ledger:
    """Rows of ``width`` f32 values, appended step by step. Held by one process at a time, gone with :meth:`finish`.

    Raises:
        StoreBusy: another process is at the same measurement. StorageError: the file cannot be made.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._path = path
        self._width = width
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}", hint="set INGLE_HOME") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            raise StoreBusy("the same measurement runs in another process", hint="wait until it is done") from error

    def begin(self, rows: int) -> NDArray[np.float32]:
        """The first ``rows`` rows, (rows, width); what lies behind them is cut off."""
        data = os.pread(self._handle, rows * self._width * 4, 0)
        os.ftruncate(self._handle, len(data))
        os.lseek(self._handle, 0, os.SEEK_END)
        return np.frombuffer(data, np.float32).reshape(-1, self._width)

    @property
    def rows(self) -> int:
        """Whole rows that are there."""
        return os.fstat(self._handle).st_size // (self._width * 4)

    def append(self, rows: NDArray[np.float32]) -> None:
        data = np.ascontiguousarray(rows, np.float32).tobytes()
        if os.write(self._handle, data) != len(data):
            raise StorageError(f"cannot write to {self._path}: the disk is full")

    def finish(self) -> None:
        """The measurement is done: remove the file."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._handle)
