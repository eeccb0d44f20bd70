"""What is finished of a file that is being written piece by piece, in any order.

The records lie behind the end of the file itself, so that both have one name, one lock and one end: a process that was
killed leaves them, and the last step of the work cuts them off.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Self

FLUSH_BYTES = 128 << 20
"""Sent to the disk beside the work each time that so much was written, so that its end has little to wait for."""
RECORD = struct.Struct("<II")
"""CRC-32 of a piece, and one more than the count that was noted with it: 0 is a piece that was not written."""


class Journal:
    """Of ``count`` pieces of a file of ``size_bytes``. Another size than that of an unfinished file begins anew."""

    def __init__(self, path: Path, size_bytes: int, count: int) -> None:
        self._size_bytes = size_bytes
        self._file = os.open(path, os.O_RDWR)
        self._flusher: threading.Thread | None = None
        self._unflushed = 0
        self._failure: OSError | None = None
        whole = size_bytes + count * RECORD.size
        if os.fstat(self._file).st_size != whole:
            os.truncate(self._file, 0)
            os.truncate(self._file, whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._flusher is not None:
            self._flusher.join()
        os.close(self._file)

    def finished(self, number: int, offset: int, num_bytes: int) -> int | None:
        """The count that was noted with a piece, if the piece is still what it was then; None if it must be written."""
        crc, count = RECORD.unpack(os.pread(self._file, RECORD.size, self._place(number)))
        if not count or zlib.crc32(os.pread(self._file, num_bytes, offset)) != crc:
            return None
        return int(count) - 1

    def note(self, number: int, num_bytes: int, crc: int, count: int) -> None:
        """A piece is written."""
        os.pwrite(self._file, RECORD.pack(crc, count + 1), self._place(number))
        self._unflushed += num_bytes
        if self._unflushed >= FLUSH_BYTES and (self._flusher is None or not self._flusher.is_alive()):
            self._unflushed = 0
            self._flusher = threading.Thread(target=self._flush, name="ingle-flush", daemon=True)
            self._flusher.start()

    def write_header(self, data: bytes) -> None:
        os.pwrite(self._file, data, 0)

    def close(self) -> None:
        """The file is whole: cut the records off, once its bytes are on the disk."""
        if self._flusher is not None:
            self._flusher.join()
        if self._failure is not None:
            raise self._failure
        os.fsync(self._file)
        os.truncate(self._file, self._size_bytes)

    def _flush(self) -> None:
        try:
            os.fdatasync(self._file)
        except OSError as error:  # the system tells it once: raised at the end
            self._failure = error

    def _place(self, number: int) -> int:
        return self._size_bytes + number * RECORD.size
