"""Chunks of prompts that keep a promise to the running streams, on a machine that is only arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from engines import GREEDY, long_prompt
from fake_model import INFO
from hypothesis import given
from hypothesis import strategies as st
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.habit import CHANGED, Habit
from ingle.runtime.engine.pace import GRAIN, LEAST_TILES, STRETCH, TILE, Pace
from ingle.runtime.engine.scheduler import Limits, Scheduler
from ingle.runtime.engine.sequence import Sequence
from ingle.runtime.llama.kernels import cache_folder
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request
from scheduling import FakeMemory, compute

MOST = 256


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))


def learned(target_s: float, lone_s: float, row_s: float) -> Pace:
    pace = Pace(target_s)
    for _ in range(20):
        pace.observe(1, 0, lone_s)
        pace.observe(1, 64, lone_s + 64 * row_s)
    return pace


@given(st.floats(0.02, 2), st.floats(0.001, 0.2), st.floats(1e-5, 0.05), st.integers(1, 100))
def test_a_step_lasts_no_longer_than_was_promised(target_s: float, lone_s: float, row_s: float, waiting: int) -> None:
    most = MOST - waiting
    rows = learned(target_s, lone_s, row_s).prompt_rows(waiting, most)
    assert GRAIN <= rows <= most
    promised_s = target_s * (STRETCH if rows <= LEAST_TILES * TILE else 1)
    assert rows == GRAIN or lone_s + rows * row_s <= promised_s * 1.001
    larger = rows + TILE
    assert larger > most or lone_s + larger * row_s > target_s * 0.999, "it could have carried more"


@given(st.floats(0.02, 2), st.floats(1e-5, 0.05), st.integers(1, 200))
def test_no_step_begins_a_tile_for_a_row_or_two(target_s: float, row_s: float, waiting: int) -> None:
    rows = learned(target_s, 0.001, row_s).prompt_rows(waiting, 10**6)
    assert rows < TILE or rows % TILE == 0


@given(st.floats(0.02, 2), st.floats(1e-5, 0.05), st.integers(1, 600))
def test_a_prompt_is_read_to_its_end_where_that_takes_no_longer_than_a_stretched_chunk(
    target_s: float, row_s: float, left: int
) -> None:
    pace = learned(target_s, 0.01, row_s)
    usual, rows = pace.prompt_rows(1, MOST), pace.prompt_rows(1, MOST, left)
    fits = left <= MOST and pace.lone_s + left * pace.row_s <= STRETCH * target_s
    assert rows == (left if usual < left and fits else usual)


def test_nobody_waits_or_nothing_is_known_or_nothing_is_promised() -> None:
    assert learned(0.01, 0.01, 0.01).prompt_rows(0, MOST) == MOST
    assert learned(0.0, 0.01, 0.01).prompt_rows(1, MOST) == MOST
    assert Pace(0.01).prompt_rows(1, MOST) == MOST
    assert learned(0.01, 0.01, 0.01).prompt_rows(1, 5) == 5


@pytest.mark.parametrize(("row_s", "rows"), [(0.001, 192), (0.002, 192), (0.0025, 128), (0.005, 64), (0.02, GRAIN)])
def test_it_follows_a_machine_that_slows_down(row_s: float, rows: int) -> None:
    pace = learned(0.2, 0.01, 0.0005)
    before = pace.prompt_rows(1, MOST)
    for _ in range(30):
        pace.observe(1, before, 0.01 + before * row_s)
    assert (before, pace.prompt_rows(1, MOST)) == (MOST, rows)


def test_a_fresh_start_begins_with_what_was_learned(bard_gguf: Mapping[str, Path]) -> None:
    options = LoadOptions(itl_target_s=0.05)
    engine = Engine(bard_gguf["f32"], options)
    info = engine.info
    assert list(engine.submit(Request(long_prompt(500), GREEDY, max_tokens=20, ignore_eos=True)))
    figures = engine.stats()
    deadline = time.monotonic() + 20
    while Habit(info, options).pace(0.05).learned == (0.0, 0.0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.close()
    learned = Habit(info, options).pace(0.05).learned
    assert learned == pytest.approx((figures.step_s, figures.prompt_row_s), rel=CHANGED)
    assert all(seconds > 0 for seconds in learned)
    assert Habit(info, replace(options, kv_type="f32")).pace(0.05).learned == (0.0, 0.0)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[null, 2]", '["x", 1]', "[-1, -2]"])
def test_what_was_kept_badly_is_learned_again(bard_gguf: Mapping[str, Path], content: str) -> None:
    info = replace(INFO, path=str(bard_gguf["f32"]))
    habit = Habit(info, LoadOptions())
    habit.keep(Pace(0.1, 0.5, 0.25))
    assert Habit(info, LoadOptions()).pace(0.1).learned == (0.5, 0.25)
    for kept in cache_folder().glob("pace-*"):
        kept.write_text(content)
    assert Habit(info, LoadOptions()).pace(0.1).learned == (0.0, 0.0)


def test_small_chunks_say_nothing_of_large_ones() -> None:
    pace = learned(0.2, 0.01, 0.001)
    for _ in range(20):
        pace.observe(1, TILE - 2, 0.01 + TILE * 0.003)
    assert pace.row_s == pytest.approx(0.001)


def test_small_steps_teach_nothing_about_rows() -> None:
    pace = learned(0.2, 0.01, 0.001)
    pace.observe(1, GRAIN - 1, 5.0)
    assert pace.row_s == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("target_s", "longest_s"),
    [(0.22, 0.01 + 192 * 0.001), (0.08, 0.01 + 128 * 0.001), (0.02, 0.01 + 16 * 0.001), (0.0, 0.01 + 256 * 0.001)],
)
def test_a_running_stream_waits_as_long_as_was_promised_while_a_long_prompt_is_read(
    target_s: float, longest_s: float
) -> None:
    memory, pace = FakeMemory(8000), learned(target_s, 0.01, 0.001)
    scheduler = Scheduler(Limits(8000, 6, 4, MOST), memory, pace=pace)
    talker, long = Sequence([1, 2], 2), Sequence(list(range(10, 4010)), 4000)
    scheduler.add(talker)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(long)
    waits = [0.0]
    while long.computed < 4000:
        rows = scheduler.schedule()
        told = any(row.sequence is talker for row in rows)
        prompt_rows = sum(row.count for row in rows if row.sequence is long)
        seconds = 0.01 * told + prompt_rows * 0.001
        waits[-1] += seconds
        if told:
            waits.append(0.0)
        pace.observe(int(told), prompt_rows, seconds)
        compute(scheduler, memory, rows)
    assert max(waits) == pytest.approx(longest_s, abs=GRAIN * 0.001)
    assert max(waits) <= longest_s + 1e-9
