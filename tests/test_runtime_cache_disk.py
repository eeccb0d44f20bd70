"""The prefix cache on disk: whole or not there, within its bytes, and never somebody else's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from engines import GREEDY, ids, long_prompt
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert.errors import StorageError
from ingle.runtime.cli.options import Size
from ingle.runtime.engine.blocks import BLOCK_TOKENS
from ingle.runtime.engine.disk_cache import SUFFIX, DiskCache
from ingle.runtime.engine.engine import Engine, EngineLike
from ingle.runtime.engine.identity import file_digest
from ingle.runtime.engine.process import EngineProcess
from ingle.runtime.llama.kernels import cache_folder
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request
from scheduling import FakeDisk, run, scheduler_of, sequence

PATIENCE_S = 20.0
KEEPING = LoadOptions(cache_disk_bytes=1 << 30, kv_type="f32")
ROOM = 400  # for a block of 300 bytes and its head


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


def name(number: int) -> bytes:
    return bytes([number]) * 32


def state(number: int, size: int = 300) -> np.ndarray:
    return np.full(size, number, np.uint8)


def filled(folder: Path, numbers: range, max_bytes: int = 1 << 20) -> None:
    cache = DiskCache(folder, max_bytes)
    for number in numbers:
        assert cache.put(name(number), state(number))
    cache.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("512M", 512_000_000), ("1.5GiB", 1_610_612_736), ("4 gb", 4_000_000_000), ("2k", 2000), ("7B", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert Size().convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "much", "-1", "1i", "4GBB", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not a size such as 512M, 4G or 1\.5GiB"):
        Size().convert(text, None, None)


def test_what_was_put_is_there_in_the_next_process(tmp_path: Path) -> None:
    filled(tmp_path / "kv", range(3))
    again = DiskCache(tmp_path / "kv", 1 << 20)
    assert [name(number) in again for number in range(4)] == [True, True, True, False]
    assert all(np.array_equal(again.get(name(number)), state(number)) for number in range(3))
    assert again.get(name(3)) is None
    assert (tmp_path / "kv").stat().st_mode & 0o077 == 0, "others may look for what was said"
    again.close()


@given(at=st.integers(0, ROOM), change=st.integers(1, 255), length=st.none() | st.integers(0, 379))
def test_a_block_that_is_not_whole_is_removed(
    tmp_path_factory: pytest.TempPathFactory, at: int, change: int, length: int | None
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    filled(folder, range(1))
    path = folder / f"{name(0).hex()}{SUFFIX}"
    content = bytearray(path.read_bytes())
    if length is None:
        content[at % len(content)] ^= change
    path.write_bytes(content[:length])
    cache = DiskCache(folder, 1 << 20)
    assert cache.get(name(0)) is None
    assert name(0) not in cache
    assert not path.exists()
    cache.close()


def test_a_link_and_a_block_of_another_name_are_no_blocks(tmp_path: Path) -> None:
    filled(tmp_path, range(1))
    path = tmp_path / f"{name(0).hex()}{SUFFIX}"
    (tmp_path / f"{name(1).hex()}{SUFFIX}").symlink_to(path)
    (tmp_path / f"{name(2).hex()}{SUFFIX}").write_bytes(path.read_bytes())
    (tmp_path / f"short{SUFFIX}").write_bytes(b"somebody's")
    cache = DiskCache(tmp_path, 1 << 20)
    assert [cache.get(name(number)) is None for number in range(3)] == [False, True, True]
    assert path.exists()
    cache.close()


def test_the_least_recently_used_make_room_before_a_block_is_written(tmp_path: Path) -> None:
    filled(tmp_path, range(4))
    for number in range(4):
        os.utime(tmp_path / f"{name(number).hex()}{SUFFIX}", (number, number))
    cache = DiskCache(tmp_path, 4 * ROOM)
    assert cache.get(name(0)) is not None
    cache.put(name(5), state(5))
    cache.put(name(6), state(6, 4 * ROOM))  # never fits
    cache.close()
    assert [name(number) in DiskCache(tmp_path, 4 * ROOM) for number in range(7)] == [1, 0, 1, 1, 0, 1, 0]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == cache.bytes <= 4 * ROOM


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / f".{name(0).hex()}{SUFFIX}.0123456789abcdef.partial").write_bytes(b"half")
    DiskCache(tmp_path, 1 << 20).close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kv").write_text("a file")
    with pytest.raises(StorageError, match=r"cannot create .*kv"):
        DiskCache(tmp_path / "kv", 1 << 20)


def test_a_conversation_is_read_again_by_the_next_process_in_whole_blocks() -> None:
    disk, prompt = FakeDisk(), list(range(100))
    for cached in (0, 96):
        scheduler, memory = scheduler_of(1000, disk=disk)
        one = sequence(prompt)
        scheduler.add(one)
        run(scheduler, memory, answer=1)
        while scheduler.keep_one():
            pass
        assert one.cached == cached


def test_conversations_with_one_beginning_keep_it_once() -> None:
    disk = FakeDisk()
    scheduler, memory = scheduler_of(1000, disk=disk)
    for tail in (500, 600):
        scheduler.add(sequence([*range(64), *range(tail, tail + 16)]))
        run(scheduler, memory, answer=1)
        while scheduler.keep_one():
            pass
    assert len(disk) == 8 + 2 + 2


def settled(engine: EngineLike, num_bytes: int = 1) -> None:
    """Wait until what the last conversation left is on disk."""
    deadline, before = time.monotonic() + PATIENCE_S, -1
    while (kept := engine.stats().disk_bytes) < num_bytes or kept != before:
        assert time.monotonic() < deadline
        before = kept
        time.sleep(0.1)


def asked(engine: EngineLike, request: Request) -> tuple[list[int], int]:
    stream = engine.submit(request)
    return ids(stream), stream.usage.cached_tokens


def test_the_same_prefix_after_kill_9_is_read_from_disk(bard_gguf: Mapping[str, Path]) -> None:
    request = Request(long_prompt(600), GREEDY, max_tokens=20, ignore_eos=True)
    engine = EngineProcess(bard_gguf["f32"], KEEPING)
    answer, cached = asked(engine, request)
    assert cached == 0
    settled(engine)
    os.kill(engine._process.pid, signal.SIGKILL)
    engine.close()
    assert cache_folder().joinpath("kv").is_dir()

    engine = EngineProcess(bard_gguf["f32"], KEEPING)
    assert asked(engine, replace(request, owner="somebody else")) == (answer, 0)
    assert asked(engine, request) == (answer, 600 - 600 % BLOCK_TOKENS)
    assert engine.stats().disk_tokens == 600 - 600 % BLOCK_TOKENS
    engine.close()


def test_what_does_not_match_is_computed(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    request = Request(long_prompt(300), GREEDY, max_tokens=5, ignore_eos=True)
    engine = Engine(bard_gguf["f32"], KEEPING)
    answer, _ = asked(engine, request)
    settled(engine)
    engine.close()

    other = tmp_path / "other.gguf"
    other.write_bytes(altered(bard_gguf["f32"]))
    for path, options in ((other, KEEPING), (bard_gguf["f32"], replace(KEEPING, kv_type="f16"))):
        engine = Engine(path, options)
        assert asked(engine, request)[1] == 0
        engine.close()

    moved = tmp_path / "moved.gguf"
    moved.write_bytes(bard_gguf["f32"].read_bytes())
    engine = Engine(moved, KEEPING)
    assert asked(engine, request) == (answer, 256)
    engine.close()


def altered(path: Path) -> bytes:
    """The same file with the last weight of its last tensor changed."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    return bytes(content)


def test_a_file_is_known_by_its_content(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    same, other = tmp_path / "same.gguf", tmp_path / "other.gguf"
    same.write_bytes(bard_gguf["f16"].read_bytes())
    other.write_bytes(altered(bard_gguf["f16"]))
    digests = [file_digest(path) for path in (bard_gguf["f16"], same, other, bard_gguf["f32"])]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
