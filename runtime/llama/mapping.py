"""The file of a model as it lies in memory, beside the weights that were laid out anew from it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .library import drop_pages

_MAPPED = re.compile(r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) \S+ \S+ \S+ \d+ +(?P<path>/.*)$", re.MULTILINE)
_COPIED = re.compile(r"(?P<buffer>\S+) model buffer size = +(?P<mib>[\d.]+) MiB")
MAPS = Path("/proc/self/maps")
PAGE = mmap.PAGESIZE


def copied(said: Iterable[str]) -> bool:
    """Whether llama.cpp says that it copied weights of a mapped file into buffers of its own."""
    buffers = {found["buffer"] for line in said if (found := _COPIED.search(line)) and float(found["mib"]) > 0}
    return any(name.endswith("_Mapped") for name in buffers) and any(not name.endswith("_Mapped") for name in buffers)


def give_back(paths: Iterable[Path]) -> None:
    """Let go of the pages of mapped files. What is still used comes back when it is touched, from the page cache."""
    for start, length in ranges(MAPS.read_text() if MAPS.exists() else "", {str(path.resolve()) for path in paths}):
        drop_pages(start, length)


def ranges(maps: str, paths: set[str]) -> Iterator[tuple[int, int]]:
    """Start and length of each mapping of one of ``paths``, by the text of /proc/self/maps."""
    for found in _MAPPED.finditer(maps):
        if found["path"] in paths:
            start = int(found["start"], 16)
            yield start, int(found["end"], 16) - start
