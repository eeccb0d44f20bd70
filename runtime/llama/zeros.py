"""A new cache as it lies in memory: zeros, which need no memory before something is written to them.

llama.cpp fills a cache with zeros when it makes it, so all of its pages are resident before a token was computed. Given
back, they read as zeros again, and come one by one when they are written to. What is a cache and what another buffer is
told by its size, which llama.cpp logs, and by the header that glibc keeps before a block of memory of its own mapping
(malloc.c: ``struct malloc_chunk``, IS_MMAPPED). Where that is not found (another libc, small caches), nothing happens.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .library import drop_pages
from .mapping import MAPS, PAGE

IS_MMAPPED = 2
FLAGS = 7
HEADER_BYTES = 16
ALIGNED = 64
"""Of llama.cpp's buffers (ggml_aligned_malloc): the header lies before that, with its distance from the start."""

PIECE = 1 << 20
SLACK = 4 * PAGE  # the size is logged with two decimals of a MiB

_CACHE = re.compile(r"CPU (?:KV|RS) buffer size = +(?P<mib>[\d.]+) MiB")
_ANONYMOUS = re.compile(r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) rw-p 0+ 00:00 0 *$", re.MULTILINE)

Range = tuple[int, int]

_process_is_ours = False


def process_is_ours() -> None:
    """From now on caches take only the memory that they use: whoever made this process counts what they may come to."""
    global _process_is_ours
    _process_is_ours = True


@contextmanager
def unused_given_back(said: list[str]) -> Iterator[None]:
    """Makes a context in the block, of which llama.cpp logs ``said``. No other context may be made meanwhile."""
    before = _anonymous() if _process_is_ours else []
    yield
    if _process_is_ours:
        sizes = [round(float(found["mib"]) * 2**20) for line in said if (found := _CACHE.search(line))]
        for fresh in without(_anonymous(), before):
            for start, end in blocks(fresh):
                if any(0 <= end - start - size <= SLACK for size in sizes):
                    _give_back_zeros(start, end)


def without(ranges: Iterable[Range], earlier: Iterable[Range]) -> Iterator[Range]:
    """What of ``ranges`` is in none of ``earlier``; both are sorted and disjoint."""
    known = list(earlier)
    for start, end in ranges:
        for low, high in known:
            if high <= start or end <= low:
                continue
            if start < low:
                yield start, low
            start = max(start, high)
        if start < end:
            yield start, end


def blocks(mapped: Range) -> Iterator[Range]:
    """The blocks of malloc that lie one after the other in memory that was mapped for them."""
    start, end = mapped
    while start + ALIGNED + HEADER_BYTES <= end:
        words = (ctypes.c_uint64 * 8).from_address(start)
        lead = words[6] if words[7] & FLAGS == IS_MMAPPED and words[6] == ALIGNED - HEADER_BYTES else 0
        size = (words[1] if words[1] & FLAGS == IS_MMAPPED and not words[0] else 0) & ~FLAGS
        if lead and size - lead != words[7] & ~FLAGS:
            return
        if size < PAGE or size % PAGE or start + size > end:
            return
        yield start, start + size
        start += size


def _give_back_zeros(start: int, end: int) -> None:
    """All pieces of a block but the first, which has its header, and those that are not zeros."""
    for begin in range(start + PAGE, end, PIECE):
        length = min(PIECE, end - begin)
        words: Any = (ctypes.c_uint64 * (length // 8)).from_address(begin)
        if not np.frombuffer(words, np.uint64).any():
            drop_pages(begin, length)


def _anonymous() -> list[Range]:
    text = MAPS.read_text() if MAPS.exists() else ""
    return [(int(found["start"], 16), int(found["end"], 16)) for found in _ANONYMOUS.finditer(text)]
