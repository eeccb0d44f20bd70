"""A cache takes the memory that it uses, and is counted whole all the same."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from engines import GOLDEN, GREEDY, ids
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert.errors import InputError
from ingle.runtime import machine
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.process import EngineProcess, owed_bytes
from ingle.runtime.llama import zeros
from ingle.runtime.llama.mapping import PAGE
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request

MIB = 1 << 20
LARGE = LoadOptions(kv_cells=65_536, context_length=1024)
"""A cache of 160 MiB."""


@st.composite
def disjoint(draw: st.DrawFn) -> list[tuple[int, int]]:
    edges = sorted(draw(st.sets(st.integers(0, 60), max_size=12)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(disjoint(), disjoint())
def test_what_is_new_is_told_from_what_was_there(ranges: list[tuple[int, int]], earlier: list[tuple[int, int]]) -> None:
    def members(some: list[tuple[int, int]]) -> list[int]:
        return [one for start, end in some for one in range(start, end)]

    found = list(zeros.without(ranges, earlier))
    assert members(found) == [one for one in members(ranges) if one not in members(earlier)]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeros, "_process_is_ours", True)


@pytest.fixture
def libc() -> Iterator[ctypes.CDLL]:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        pytest.skip("another libc")
    libc.free.argtypes = [ctypes.c_void_p]
    yield libc


def allocate(libc: ctypes.CDLL, size: int) -> int:
    """As llama.cpp does it."""
    pointer = ctypes.c_void_p()
    assert libc.posix_memalign(ctypes.byref(pointer), ctypes.c_size_t(64), ctypes.c_size_t(size)) == 0
    assert pointer.value
    return pointer.value


def resident(libc: ctypes.CDLL, address: int, size: int) -> int:
    """Bytes of these pages that take memory: what the process holds beside them does not matter."""
    begin, end = -(-address // PAGE) * PAGE, (address + size) // PAGE * PAGE
    pages = (ctypes.c_ubyte * ((end - begin) // PAGE))()
    assert libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), pages) == 0
    return PAGE * sum(page & 1 for page in pages)


def test_zeros_of_a_new_cache_are_given_back_and_nothing_else_is(ours: None, libc: ctypes.CDLL) -> None:
    size = 64 * MIB
    before = allocate(libc, size)
    ctypes.memset(before, 0, size)
    said: list[str] = []
    with zeros.unused_given_back(said):
        graph, cache = allocate(libc, 40 * MIB), allocate(libc, size)
        for address, length in ((graph, 40 * MIB), (cache, size)):
            ctypes.memset(address, 0, length)
        ctypes.memset(cache + 5 * MIB, 7, 3)
        assert resident(libc, cache, size) > 63 * MIB
        said.append("llama_kv_cache:        CPU KV buffer size =    64.00 MiB")
    assert resident(libc, graph, 40 * MIB) > 39 * MIB
    assert resident(libc, before, size) > 63 * MIB
    assert 0 < resident(libc, cache, size) < 2 * MIB, "what was written in the cache"
    assert ctypes.string_at(cache + 5 * MIB, 4) == b"\7\7\7\0"
    assert ctypes.string_at(cache, size).count(0) == size - 3
    for address in (before, graph, cache):
        libc.free(ctypes.c_void_p(address))


@pytest.mark.parametrize("ours", [False, True])
def test_only_a_process_of_its_own_gives_back(ours: bool, libc: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(zeros, "_process_is_ours", ours)
    maps = [[(0, 1)], []]
    monkeypatch.setattr(zeros, "_anonymous", maps.pop)
    monkeypatch.setattr(zeros, "blocks", lambda fresh: [(cache - 64, cache - 64 + 64 * MIB + 4096)])
    monkeypatch.setattr(zeros, "drop_pages", lambda start, length: given_back.append(length))
    memory = allocate(libc, 66 * MIB)
    cache = -(-memory // 4096) * 4096 + 64
    ctypes.memset(memory, 0, 66 * MIB)
    with zeros.unused_given_back(said := []):
        said.append("llama_kv_cache:        CPU KV buffer size =    64.00 MiB")
    assert (sum(given_back) >= 64 * MIB - 4096) is ours
    assert given_back or not ours
    libc.free(ctypes.c_void_p(memory))


def test_memory_without_blocks_of_their_own_is_left_alone() -> None:
    memory = ctypes.create_string_buffer(b"\1" * 8192, 8192)
    start = ctypes.addressof(memory)
    assert not list(zeros.blocks((start, start + 8192)))


def test_an_engine_takes_what_it_uses_answers_the_same_and_its_cache_is_nobody_elses(
    bard_gguf: Mapping[str, Path], libc: ctypes.CDLL
) -> None:
    case = GOLDEN[0]
    engine = EngineProcess(bard_gguf["f32"], LARGE)
    try:
        cache = engine.info.kv_bytes
        assert cache == 160 * MIB
        footprint = engine.info.footprint
        assert footprint is not None
        request = Request(tuple(case["prompt_ids"]), GREEDY, max_tokens=16, ignore_eos=True)
        assert ids(engine.submit(request)) == case["greedy_ids"][:16]
        assert engine.stats().resident_bytes < footprint.total - 0.8 * cache
        assert 0.8 * cache < owed_bytes() <= footprint.total
        free = machine.available_memory_bytes()
        with pytest.raises(InputError, match="are there"):
            Engine(bard_gguf["f32"], LARGE, owed_bytes=free)
        Engine(bard_gguf["f32"], LARGE, owed_bytes=0).close()
        engine._rest_after_s, engine._used = 1.0, engine._used - 10
        assert owed_bytes() == 0, "at rest it has no cache"
    finally:
        engine.close()
    assert owed_bytes() == 0
