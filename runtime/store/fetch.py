"""Download one file into the Hugging Face cache: resumed where it stopped, checked before it gets its name.

Or read a span of it, which can be checked against nothing and is therefore kept nowhere (:func:`read_span`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from ...convert.errors import ChecksumMismatch, DiskFull, HubError, StorageError
from .cache import Cache
from .lock import locked
from .repository import RemoteFile, Repository

LONGEST_WAIT_S = 120.0
CHUNK_BYTES = 1 << 20
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Count = Callable[[int], None]


class Interrupted(HubError):
    """The hub or the way to it failed in a manner that may pass."""

    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file from ``offset`` on; a server may start at 0 although it was asked for more."""

    offset: int
    chunks: Iterator[bytes]


Opener = Callable[[int], AbstractContextManager[Body]]


@dataclass(slots=True)
class Patience:
    """How often a broken connection is taken up again: ``attempts`` in a row without a byte of progress."""

    attempts: int = 6
    first_wait_s: float = 0.5
    failures: int = field(default=0, init=False)

    def bear(self, error: Interrupted) -> None:
        """Wait a moment, or raise ``error`` when it is enough."""
        self.failures += 1
        wait_s: float = max(error.retry_after_s, self.first_wait_s * 2.0 ** (self.failures - 1))
        if self.failures >= self.attempts or wait_s > LONGEST_WAIT_S:
            raise error
        time.sleep(wait_s)

    def rest(self) -> None:
        self.failures = 0


class Partial:
    """The bytes of one file that are here so far, and their running checksum."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self._path, self._file = path, file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("ab")
        self.size_bytes = 0
        self._hash = file.hasher()
        self._read_existing()

    def _read_existing(self) -> None:
        with self._path.open("rb") as existing:
            while chunk := existing.read(CHUNK_BYTES):
                self._hash.update(chunk)
                self.size_bytes += len(chunk)

    @property
    def is_intact(self) -> bool:
        return self.size_bytes == self._file.size_bytes and self._hash.hexdigest() == self._file.etag

    def restart(self) -> None:
        self._out.truncate(0)
        self.size_bytes, self._hash = 0, self._file.hasher()

    def append(self, chunk: bytes) -> None:
        try:
            self._out.write(chunk)
        except OSError as error:
            raise _storage_error(error, self._path) from error
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def become(self, blob: Path) -> None:
        """Give the file its final name; its bytes are on the disk before."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self._path.replace(blob)
        folder = os.open(blob.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        try:
            self._out.close()
        except OSError as error:
            raise _storage_error(error, self._path) from error


def fetch(
    cache: Cache, repository: Repository, file: RemoteFile, open_at: Opener, *, patience: Patience, count: Count
) -> Path:
    """Make ``file`` stand whole and checked in the cache; returns its path in the snapshot.

    A blob that is here already is checked too, and replaced when its bytes do not match its name. ``count`` is told
    of bytes as they arrive (negative when some have to be fetched again).

    Raises:
        ChecksumMismatch: the hub sent other bytes than it announced; nothing of them is kept.
        HubError: the hub could not be reached, or refused. DiskFull: what arrived is kept, to go on from there.
        StoreBusy: another process has been downloading the file for an hour.
    """
    blob = cache.blob(repository.id, file)
    with locked(cache.lock(repository.id, file), f"the download of {file.name}", wait_s=3600.0):
        if is_intact(blob, file):
            count(file.size_bytes)
        else:
            blob.unlink(missing_ok=True)
            _download(cache.partial(repository.id, file), blob, file, open_at, patience, count)
    return cache.link(repository, file)


def read_span(open_at: Opener, start: int, stop: int, patience: Patience) -> bytes:
    """The bytes from ``start`` to ``stop`` (not included) as the hub sends them, unchecked: a checksum needs the whole.

    No more is read, whatever the server would send: leaving ``open_at`` closes the connection.

    Raises:
        HubError: the hub could not be reached, or refused.
    """
    span = bytearray()
    while len(span) < stop - start:
        before = len(span)
        try:
            with open_at(start + before) as body:
                for piece in _within(body, start + before, stop):
                    span += piece
            if len(span) < stop - start:
                raise Interrupted(f"the connection ended at byte {start + len(span):,}, before {stop:,}")
        except Interrupted as error:
            if len(span) > before:
                patience.rest()
            patience.bear(error)
    return bytes(span)


def _within(body: Body, start: int, stop: int) -> Iterator[bytes]:
    """What ``body`` has between ``start`` and ``stop``; no chunk after that is waited for."""
    at = body.offset
    for chunk in body.chunks:
        yield chunk[max(0, start - at) : stop - at]
        at += len(chunk)
        if at >= stop:
            return


def is_intact(blob: Path, file: RemoteFile) -> bool:
    """Whether ``blob`` is there and has the bytes that its checksum promises."""
    if not blob.is_file() or blob.stat().st_size != file.size_bytes:
        return False
    with blob.open("rb") as source:
        return hashlib.file_digest(source, file.hasher).hexdigest() == file.etag


def _download(path: Path, blob: Path, file: RemoteFile, open_at: Opener, patience: Patience, count: Count) -> None:
    partial = Partial(path, file)
    try:
        count(partial.size_bytes)
        resumed = partial.size_bytes > 0
        _fill(partial, file, open_at, patience, count)
        if resumed and not partial.is_intact:  # the earlier bytes may be to blame: once more from the start
            count(-partial.size_bytes)
            partial.restart()
            _fill(partial, file, open_at, patience, count)
        if not partial.is_intact:
            partial.discard()
            raise ChecksumMismatch(
                f"{file.name} arrived with other bytes than the hub announced (checksum {file.etag})",
                hint="nothing of it was kept; run it again, and distrust the hub or the proxy if it happens twice",
            )
        partial.become(blob)
    finally:
        partial.close()


def _fill(partial: Partial, file: RemoteFile, open_at: Opener, patience: Patience, count: Count) -> None:
    """Append until the announced size is reached."""
    while partial.size_bytes < file.size_bytes:
        before = partial.size_bytes
        try:
            with open_at(before) as body:
                _copy(partial, body, file, count)
            if partial.size_bytes < file.size_bytes:
                raise Interrupted(f"the connection ended at byte {partial.size_bytes:,} of {file.size_bytes:,}")
        except Interrupted as error:
            if partial.size_bytes > before:
                patience.rest()
            patience.bear(error)


def _copy(partial: Partial, body: Body, file: RemoteFile, count: Count) -> None:
    if body.offset != partial.size_bytes:
        count(-partial.size_bytes)
        partial.restart()
    for chunk in body.chunks:
        if partial.size_bytes + len(chunk) > file.size_bytes:
            partial.discard()
            raise ChecksumMismatch(f"{file.name} is longer than the {file.size_bytes:,} bytes the hub announced")
        partial.append(chunk)
        count(len(chunk))


def _storage_error(error: OSError, path: Path) -> StorageError:
    if error.errno in OUT_OF_SPACE:
        return DiskFull(
            f"no space left while writing {path}", hint="free some space and run it again: it goes on from here"
        )
    return StorageError(f"cannot write {path}: {error.strerror}")
