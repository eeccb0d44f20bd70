"""Zip archives whose members are stored, not compressed: each is a span of the mapped file and is never extracted.

Format: PKWARE APPNOTE 4.3. A local header before each member, a central directory, and the end records.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import BadCheckpoint

MAX_MEMBERS = 100_000
# bit 3: sizes follow the data (they are in the central directory too); bit 11: the name is UTF-8.
HARMLESS_FLAGS = 0x0808
IN_ZIP64 = 0xFFFFFFFF
ZIP64_FIELD = 1

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FIELD = struct.Struct("<2H")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file."""

    offset: int
    nbytes: int


def members(path: Path, buffer: mmap.mmap, size: int) -> dict[str, Span]:
    """Where the bytes of each member lie.

    Raises:
        BadCheckpoint: the file is no plain archive: cut off, compressed, encrypted, with a comment, a name twice, or
            members that together are larger than the file.
    """
    entries, directory = _directory(path, buffer, size)
    if entries > MAX_MEMBERS:
        raise _broken(path, f"it has {entries:,} members, and at most {MAX_MEMBERS:,} are allowed")
    found: dict[str, Span] = {}
    for name, local, nbytes in _entries(path, buffer, entries, directory):
        if name in found:
            raise _broken(path, f"member {name!r} occurs twice")
        found[name] = _located(path, buffer, name, local, nbytes, directory.offset)
    if sum(span.nbytes for span in found.values()) > size:
        raise _broken(path, "its members overlap")
    return found


def _directory(path: Path, buffer: mmap.mmap, size: int) -> tuple[int, Span]:
    """The number of members, and the span of the central directory."""
    end = size - _END.size
    if end < 0 or buffer[end : end + 4] != b"PK\5\6":
        raise _broken(path, "it does not end as an archive does")
    _, disk, first_disk, here, entries, nbytes, offset, comment = _END.unpack_from(buffer, end)
    if disk or first_disk or here != entries or comment:
        raise _broken(path, "it is one part of several, or has a comment")
    if (locator := end - _LOCATOR.size) >= 0 and buffer[locator : locator + 4] == b"PK\6\7":
        entries, nbytes, offset, end = _directory64(path, buffer, locator)
    if offset + nbytes > end or entries * _CENTRAL.size > nbytes:
        raise _broken(path, f"its directory of {entries:,} members cannot be at byte {offset:,}")
    return entries, Span(offset, nbytes)


def _directory64(path: Path, buffer: mmap.mmap, locator: int) -> tuple[int, int, int, int]:
    _, _, end, _ = _LOCATOR.unpack_from(buffer, locator)
    if end + _END64.size > locator or buffer[end : end + 4] != b"PK\6\6":
        raise _broken(path, "its second end record is missing")
    _, _, _, _, _, _, _, entries, nbytes, offset = _END64.unpack_from(buffer, end)
    return entries, nbytes, offset, end


def _entries(path: Path, buffer: mmap.mmap, entries: int, directory: Span) -> Iterator[tuple[str, int, int]]:
    """Name, offset of the local header, and size of each member."""
    place, end = directory.offset, directory.offset + directory.nbytes
    for _ in range(entries):
        if place + _CENTRAL.size > end or buffer[place : place + 4] != b"PK\1\2":
            raise _broken(path, f"its directory is cut off at byte {place:,}")
        record = _CENTRAL.unpack_from(buffer, place)
        flags, method, packed, nbytes, name_length, extra_length, comment_length = (
            record[3], record[4], *record[8:13],
        )  # fmt: skip
        place += _CENTRAL.size
        name = _name(path, buffer[place : place + name_length])
        if method or flags & ~HARMLESS_FLAGS:
            raise _broken(path, f"member {name!r} is compressed or encrypted, where torch.save stores")
        extra = buffer[place + name_length : min(place + name_length + extra_length, end)]
        nbytes, packed, local = _sizes64(extra, [nbytes, packed, record[16]])
        if nbytes != packed:
            raise _broken(path, f"member {name!r} has two sizes, {nbytes:,} and {packed:,}")
        yield name, local, nbytes
        place += name_length + extra_length + comment_length


def _name(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _broken(path, f"a member has the name {data[:80]!r}") from error


def _sizes64(extra: bytes, sizes: list[int]) -> list[int]:
    """``sizes`` with each that did not fit into 32 bits taken from the zip64 field, where they stand in order."""
    place = 0
    while place + _FIELD.size <= len(extra):
        kind, length = _FIELD.unpack_from(extra, place)
        place += _FIELD.size
        if kind == ZIP64_FIELD:
            large = iter(extra[at : at + 8] for at in range(place, place + length - 7, 8))
            return [int.from_bytes(next(large, b""), "little") if size == IN_ZIP64 else size for size in sizes]
        place += length
    return sizes


def _located(path: Path, buffer: mmap.mmap, name: str, local: int, nbytes: int, end: int) -> Span:
    """The bytes behind a local header."""
    if local + _LOCAL.size > end or buffer[local : local + 4] != b"PK\3\4":
        raise _broken(path, f"member {name!r} is not at byte {local:,}")
    name_length, extra_length = _LOCAL.unpack_from(buffer, local)[9:]
    start = local + _LOCAL.size
    offset = start + name_length + extra_length
    if buffer[start : start + name_length] != name.encode() or offset + nbytes > end:
        raise _broken(path, f"member {name!r} of {nbytes:,} bytes cannot be at byte {offset:,}")
    return Span(offset, nbytes)


def _broken(path: Path, rule: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is not a sound archive of torch.save: {rule}", hint="download the file again")
