"""How many threads compute while others want the same cores: arithmetic, and the threads themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from engines import GREEDY, PROMPT, ids
from ingle.runtime.engine.crew import LATE_S, STEPS, Crowd
from ingle.runtime.engine.engine import Engine
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request, Sampling


def step_s(threads: int, rivals: int, cores: int) -> float:
    """Threads of one each: as slow as the slowest, who shares its core where there are more than cores."""
    return 0.01 * cores / threads * (1 if threads + rivals <= cores else 2)


def run(crowd: Crowd, steps: int, rivals: int, cores: int, now: float) -> tuple[float, list[int]]:
    used = []
    for _ in range(steps):
        seconds = step_s(crowd.threads, rivals, cores)
        used.append(crowd.threads)
        now += seconds
        free = 1.0 if crowd.threads + rivals <= cores else 0.6
        crowd.observe(1, seconds, seconds * crowd.threads * free, now)
    return now, used


def test_alone_nothing_is_tried() -> None:
    _, used = run(Crowd(4), 2000, 0, 4, 0.0)
    assert set(used) == {4}


def test_a_core_that_another_process_uses_is_left_to_it_and_taken_again() -> None:
    crowd = Crowd(4)
    now, used = run(crowd, 5000, 1, 4, 0.0)
    assert used[STEPS + 1 :].count(3) > 0.97 * len(used)
    assert 0 < used[3 * STEPS :].count(4) < 0.03 * len(used), "now and then all are tried"
    now, used = run(crowd, 3000, 2, 4, now)
    assert used.count(2) > 0.9 * len(used)
    now, used = run(crowd, 5000, 0, 4, now)
    assert used[-1000:] == [4] * 1000


def test_where_fewer_are_no_quicker_they_are_seldom_tried() -> None:
    """One thread of two beside two rivals: half a core either way."""
    crowd, now, tried = Crowd(2), 0.0, 0
    for _ in range(5000):
        tried += crowd.threads == 1
        now += 0.02
        crowd.observe(1, 0.02, 0.02 * crowd.threads * 0.6, now)
    assert 0 < tried < 5000 * STEPS * 0.03 / LATE_S + 3 * STEPS + 100


def test_another_number_of_rows_ends_a_trial() -> None:
    crowd = Crowd(2)
    for _ in range(STEPS + 1):
        crowd.observe(1, 0.02, 0.02, 100.0)
    assert crowd.threads == 1
    assert crowd.observe(2, 0.03, 0.03, 100.0) == 2


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores of Linux")
def test_an_engine_changes_its_threads_and_says_the_same(
    bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(PROMPT, GREEDY, max_tokens=60, ignore_eos=True)
    engine = Engine(bard_gguf["f32"], LoadOptions(threads=2, speculate="off"))
    usual = ids(engine.submit(request))
    counts = [1, 2] * 1000
    monkeypatch.setattr(Crowd, "observe", lambda self, rows, seconds, cpu_s, now: counts.pop())
    assert ids(engine.submit(request)) == usual
    assert len(counts) < 1960
    monkeypatch.setattr("ingle.runtime.engine.crew.STALE_S", -1.0)
    assert ids(engine.submit(request)) == usual
    told = len(counts)
    seeded = Request(PROMPT, Sampling(temperature=0.5, seed=1), max_tokens=60, ignore_eos=True)
    assert len(ids(engine.submit(seeded))) == 60
    assert len(counts) == told, "what is to repeat to the bit is computed by all"
    engine.close()
