"""Which step the rows of a prompt go into: beside those who decode, or between two steps of theirs."""

from __future__ import annotations

from ingle.runtime.engine.scheduler import Scheduler
from scheduling import FakeMemory, compute, scheduler_of, sequence


def steps_of(scheduler: Scheduler, memory: FakeMemory, count: int) -> list[list[int]]:
    """How many rows each sequence gets."""
    steps = []
    for _ in range(count):
        rows = scheduler.schedule()
        steps.append([row.count for row in rows])
        compute(scheduler, memory, rows)
    return steps


def test_tiles_of_a_prompt_are_computed_between_the_steps_of_those_who_decode() -> None:
    scheduler, memory = scheduler_of(4000, slots=8, parallel=6, rows=256)
    for start in (0, 10):
        scheduler.add(sequence([start, start + 1]))
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(sequence(list(range(100, 720))))
    assert steps_of(scheduler, memory, 7) == [[256], [1, 1], [256], [1, 1], [108], [1, 1, 1], [1, 1, 1]]
    scheduler.add(sequence(list(range(1000, 1060))))
    assert steps_of(scheduler, memory, 2) == [[1, 1, 1, 60], [1, 1, 1, 1]]
    scheduler.add(sequence(list(range(2000, 2060))))
    assert steps_of(scheduler, memory, 2) == [[60], [1, 1, 1, 1, 1]], "64 rows are a tile"


def test_no_small_chunk_is_left_of_a_prompt_that_can_be_read_to_its_end() -> None:
    scheduler, memory = scheduler_of(4000, slots=8, parallel=6, rows=256)
    scheduler.pace.target_s, scheduler.pace.lone_s, scheduler.pace.row_s = 0.2, 0.001, 0.001
    scheduler.add(sequence([1, 2]))
    compute(scheduler, memory, scheduler.schedule())
    for start in (100, 400, 700):
        scheduler.add(sequence(list(range(start, start + 250))))
    assert steps_of(scheduler, memory, 5) == [[250], [1, 1], [250], [1, 1, 1], [250]]
    scheduler.add(sequence(list(range(1000, 1300))))
    assert steps_of(scheduler, memory, 4) == [[1] * 4, [192], [1] * 4, [108]]


def test_who_decodes_in_a_full_step_does_not_keep_prompts_out() -> None:
    scheduler, memory = scheduler_of(4000, slots=20, parallel=18, rows=16)
    for number in range(15):
        scheduler.add(sequence([100 * number, 100 * number + 1]))
    while any(len(one.tokens) == one.num_prompt for one in [*scheduler.waiting, *scheduler.running]):
        compute(scheduler, memory, scheduler.schedule())
    scheduler.add(sequence(list(range(5000, 5020))))
    assert steps_of(scheduler, memory, 5) == [[1] * 15, [16], [1] * 15, [4], [1] * 16]


def test_adapters_that_decode_wait_for_one_chunk_of_another_and_its_own_for_no_more() -> None:
    scheduler, memory = scheduler_of(4000, rows=256)
    talkers = [sequence([1, 2], 0), sequence([3, 4], 1)]
    for talker in talkers:
        scheduler.add(talker)
    while not all(talker.decoding for talker in talkers):
        compute(scheduler, memory, scheduler.schedule())
    scheduler.add(sequence(list(range(100, 900)), 0))
    waits = {id(talker): [0] for talker in talkers}
    for _ in range(12):
        rows = scheduler.schedule()
        for talker in talkers:
            told = any(row.sequence is talker for row in rows)
            waits[id(talker)].append(0 if told else waits[id(talker)][-1] + max(row.count for row in rows))
        compute(scheduler, memory, rows)
    assert max(map(max, waits.values())) < 300
