"""Computed tokens on disk: one file a block, whole or not there, within a budget of bytes.

A file is named by what it holds: the digest of the model's file, the build, the type of the cache and all tokens up to
its end (``blocks.py``). So whatever does not match is not found, and whoever asks computes it instead. Each file says
that name again and the SHA-256 of its content; one that says something else is removed. Several processes may share a
folder.

    8 bytes  magic        32 bytes  name        8 bytes  size        32 bytes  SHA-256        content
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...convert.errors import DiskFull, StorageError
from ...convert.files import PARTIAL_SUFFIX, appearing, sweep
from .parked import State

MAGIC = b"INGLEKV1"
SUFFIX = ".kv"
_HEAD = struct.Struct("<8s32sQ32s")
MOST_UNWRITTEN_BYTES = 256 << 20
"""What waits for the disk at most; blocks beyond it are not kept."""

CLOSING_S = 5.0

_logger = logging.getLogger("ingle.cache")


class DiskCache:
    """Blocks by name in ``folder``, of at most ``max_bytes`` together; the least recently used go first.

    Reading is done by the caller, writing by a thread of its own.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create {folder}: {error.strerror}", hint="choose another folder") from error
        self._sweep()
        files = list(self._files())
        self._known = {bytes.fromhex(path.stem) for path, _ in files}
        self.bytes = sum(facts.st_size for _, facts in files)
        self._unwritten_bytes = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[bytes, State] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="ingle-cache-writer", daemon=True)
        self._writer.start()

    def __contains__(self, name: bytes) -> bool:
        return name in self._known

    def put(self, name: bytes, state: State) -> bool:
        """Have a block written; False where too much waits for the disk already."""
        with self._lock:
            if self._unwritten_bytes + state.nbytes > MOST_UNWRITTEN_BYTES:
                return False
            self._unwritten_bytes += state.nbytes
        self._known.add(name)
        self._queue.put((name, state))
        return True

    def get(self, name: bytes) -> State | None:
        """The content of a block; None where there is none, or none that is whole."""
        path = self._path(name)
        try:
            state = _read(path, name)
        except FileNotFoundError:
            state = None
        except (OSError, ValueError) as error:
            _logger.warning("%s is removed from the cache: %s", path, error)
            state = None
            with contextlib.suppress(OSError):
                path.unlink()
        if state is None:
            self._known.discard(name)
        else:
            with contextlib.suppress(OSError):
                os.utime(path)
        return state

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        self._queue.put(None)
        self._writer.join(CLOSING_S)

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            name, state = item
            try:
                self._write(name, state)
            except (OSError, DiskFull, StorageError) as error:
                self._known.discard(name)
                _logger.warning("a block of the prefix cache was not kept: %s", error)
            with self._lock:
                self._unwritten_bytes -= state.nbytes

    def _write(self, name: bytes, state: State) -> None:
        if not self._make_room(_HEAD.size + state.nbytes):
            self._known.discard(name)
            return
        with appearing(self._path(name)) as partial, partial.open("wb") as file:
            content = state.data
            file.write(_HEAD.pack(MAGIC, name, state.nbytes, hashlib.sha256(content).digest()))
            file.write(content)
        self.bytes += _HEAD.size + state.nbytes

    def _make_room(self, size_bytes: int) -> bool:
        """Remove the least recently used blocks until a file of that size fits; False if it never does."""
        files = sorted(self._files(), key=lambda item: item[1].st_mtime_ns)
        self.bytes = sum(facts.st_size for _, facts in files)
        if size_bytes > self._max_bytes:
            return False
        for path, facts in files:
            if self.bytes + size_bytes <= self._max_bytes:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            self._known.discard(bytes.fromhex(path.stem))
            self.bytes -= facts.st_size
        return True

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self._folder):
            if entry.name.endswith(SUFFIX) and _is_name(entry.name.removesuffix(SUFFIX)):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)

    def _sweep(self) -> None:
        """Remove what killed processes left half written."""
        for path in self._folder.glob(f".*{PARTIAL_SUFFIX}"):
            sweep(path.with_name(path.name[1:].removesuffix(PARTIAL_SUFFIX).rpartition(".")[0]))

    def _path(self, name: bytes) -> Path:
        return self._folder / f"{name.hex()}{SUFFIX}"


def _is_name(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _read(path: Path, name: bytes) -> State:
    """Raises ValueError for a file that is not what it should be."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is no regular file")
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError("it ends in its head")
        magic, said, size, digest = _HEAD.unpack(head)
        if magic != MAGIC or said != name or size != facts.st_size - _HEAD.size:
            raise ValueError("its head says something else")
        state = np.empty(size, np.uint8)
        if file.readinto(state.data) != size or hashlib.sha256(state.data).digest() != digest:
            raise ValueError("its checksum is another one")
    return state
