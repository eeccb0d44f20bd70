"""A position in a memory-mapped GGUF file that refuses to run past its end."""

from __future__ import annotations

import mmap
import os
import stat
import struct
from pathlib import Path
from typing import NoReturn

from .errors import BadGGUF

MIN_FILE_BYTES = 24
MAX_STRING_BYTES = 64 << 20

_U64 = struct.Struct("<Q")


class Cursor:
    """A position in a mapped file that refuses to run past its end."""

    def __init__(self, path: Path, buffer: mmap.mmap, size: int) -> None:
        self.path = path
        self.buffer = buffer
        self.size = size
        self.position = 0

    def fail(self, rule: str, at: int | None = None) -> NoReturn:
        raise BadGGUF(
            f"{self.path} is not a sound GGUF file: at byte {self.position if at is None else at}, {rule}",
            hint="get the file again, or convert the checkpoint again",
        )

    def require(self, length: int, what: str) -> None:
        left = self.size - self.position
        if length > left:
            self.fail(f"{what} needs {length:,} bytes, but {left:,} are left")

    def take(self, length: int, what: str) -> bytes:
        self.require(length, what)
        self.position += length
        return self.buffer[self.position - length : self.position]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def count(self, what: str, most: int, record_bytes: int) -> int:
        """A number of records, at most ``most``, all of which can fit into the rest of the file."""
        number = self.u64(f"the number of {what}")
        if number > most:
            self.fail(f"there are {number:,} {what}, and at most {most:,} are allowed", at=self.position - 8)
        self.require(number * record_bytes, f"{number:,} {what}")
        return number

    def string(self, what: str, most: int = MAX_STRING_BYTES) -> str:
        start = self.position
        length = self.u64(f"the length of {what}")
        if length > most:
            self.fail(f"{what} has {length:,} bytes, and at most {most:,} are allowed", at=start)
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8", at=start)

    def strings(self, count: int, what: str) -> list[str]:
        """``count`` strings in one pass; the loop is written out because a vocabulary has 400,000 of them."""
        buffer, size, position, unpack = self.buffer, self.size, self.position, _U64.unpack_from
        strings = []
        for _ in range(count):
            self.position = position
            if size - position < 8 or unpack(buffer, position)[0] > size - position - 8:
                self.fail(f"a string of {what} runs past the end of the file")
            end = position + 8 + unpack(buffer, position)[0]
            try:
                strings.append(buffer[position + 8 : end].decode())
            except UnicodeDecodeError:
                self.fail(f"a string of {what} is not UTF-8")
            position = end
        self.position = position
        return strings


def map_file(path: Path) -> tuple[mmap.mmap, int]:
    """Map a regular file. A FIFO or device is refused without waiting for it, hence O_NONBLOCK."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise BadGGUF(f"cannot open {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadGGUF(f"{path} is not a regular file")
        if status.st_size < MIN_FILE_BYTES:
            raise BadGGUF(f"{path} is not a GGUF file: it has {status.st_size} bytes")
        return mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ), status.st_size
    except OSError as error:
        raise BadGGUF(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(handle)
