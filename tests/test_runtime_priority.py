"""Interactive, normal and background requests under one scheduler."""

from __future__ import annotations

import pytest
from ingle.convert.errors import BadRequest
from ingle.runtime.engine.priority import PATIENCE, rank
from scheduling import compute, run, scheduler_of, sequence


def test_background_work_yields_within_one_step_and_is_not_forgotten() -> None:
    scheduler, memory = scheduler_of(cells=4000, rows=64)
    batch = sequence(list(range(1000)), priority="background")
    scheduler.add(batch)
    compute(scheduler, memory, scheduler.schedule())
    talker = sequence([5000, 5001])
    scheduler.add(talker)
    steps = []
    for _ in range(2 * PATIENCE + 2):
        rows = scheduler.schedule()
        steps.append([row.sequence for row in rows])
        compute(scheduler, memory, rows)
    assert steps[:PATIENCE] == [[talker]] * PATIENCE
    assert steps.count([batch]) == 2, "it would starve beside endless streams"
    assert scheduler.figures()["yielded_steps"] == 2 * PATIENCE
    scheduler.finish(talker)
    assert [row.sequence for row in scheduler.schedule()] == [batch]


def test_background_work_makes_room_and_goes_on_later() -> None:
    scheduler, memory = scheduler_of(cells=450, slots=6, parallel=2, rows=64, parked_bytes=1 << 20)
    batches = [sequence([number * 1000 + k for k in range(80)], priority="background") for number in (1, 2)]
    for batch in batches:
        scheduler.add(batch)
    for _ in range(6):
        compute(scheduler, memory, scheduler.schedule())
    talker = sequence(list(range(300)))
    scheduler.add(talker)
    assert [row.sequence for row in scheduler.schedule()] == [talker]
    assert scheduler.running == [batches[0], talker]
    scheduler.check()
    assert run(scheduler, memory, answer=8) < 300 + 3 * 9, "what the batches had computed was copied"


def test_an_interactive_prompt_is_read_before_a_normal_one() -> None:
    scheduler, _ = scheduler_of(cells=4000, slots=6, parallel=3, rows=64)
    normal, second = sequence(list(range(1000, 1100))), sequence(list(range(2000, 2080)))
    urgent = sequence(list(range(300)), priority="interactive")
    for one in (normal, second, urgent):
        scheduler.add(one)
    assert [(row.sequence, row.count) for row in scheduler.schedule()] == [(urgent, 64)]
    assert scheduler.running == [urgent, normal, second]


def test_nobody_waits_for_a_prefix_that_the_background_computes() -> None:
    scheduler, memory = scheduler_of(cells=4000, rows=64)
    scheduler.add(sequence(list(range(1000)), priority="background"))
    compute(scheduler, memory, scheduler.schedule())
    same = sequence(list(range(1000)))
    scheduler.add(same)
    assert [row.sequence for row in scheduler.schedule()] == [same]
    assert same.cached == 64


def test_a_priority_that_there_is_not_is_named() -> None:
    with pytest.raises(BadRequest, match="'urgent'; it must be interactive, normal, background") as caught:
        rank("urgent")
    assert caught.value.param == "priority"
