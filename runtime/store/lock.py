"""One writer at a time, across processes and threads: an advisory lock on a file that is never removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ...convert.errors import StorageError, StoreBusy
from ...convert.progress import Progress, silent

POLL_S = 0.1


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait_s: float, progress: Progress = silent) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs. The kernel gives it back when its holder dies, however it dies.

    Raises:
        StoreBusy: somebody else held it for ``wait_s`` seconds; ``what`` names what they are busy with.
    """
    handle = _open(path)
    try:
        _acquire(handle, what, wait_s, progress)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"cannot open the lock file {path}: {error.strerror}") from error


def _acquire(handle: int, what: str, wait_s: float, progress: Progress) -> None:
    started = time.monotonic()
    while not _try(handle):
        waited = time.monotonic() - started
        if waited >= wait_s:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StoreBusy(
                f"{what} is in use by another process (pid {holder})", hint="wait until it is done, and try again"
            )
        progress(f"waiting for another process to finish {what}", int(waited), 0)
        time.sleep(min(POLL_S, wait_s - waited))


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
