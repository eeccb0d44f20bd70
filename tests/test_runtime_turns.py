"""Groups of requests that cannot share a step, as those with different adapters: each is served as soon as is fair."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from ingle.runtime.engine.pace import TILE
from ingle.runtime.engine.scheduler import Limits, Scheduler
from ingle.runtime.engine.sequence import Row
from ingle.runtime.engine.turns import STEPS, Turns
from scheduling import FakeMemory, compute, scheduler_of, sequence
from test_runtime_pace import learned

MOVES = st.lists(st.tuples(st.sampled_from(["come", "go", "step", "step", "step"]), st.integers(0, 5)), max_size=300)


@given(MOVES)
def test_one_that_waits_sees_every_other_take_one_turn_at_most(moves: list[tuple[str, int]]) -> None:
    turns, present, seen = Turns(), [], {}  # seen: steps of the others since a group's last one
    for move, group in moves:
        if move == "come" and group not in present:
            present.append(group)
            seen[group] = Counter()
        elif move == "go" and group in present:
            present.remove(group)
        elif move == "step" and present:
            chosen = turns.order(present)[0]
            turns.take(chosen)
            seen[chosen] = Counter()
            for other in present:
                if other != chosen:
                    seen[other][chosen] += 1
                    assert seen[other][chosen] <= STEPS


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4))
def test_requests_get_as_many_tokens_however_many_share_their_adapter(sizes: list[int]) -> None:
    scheduler, memory = scheduler_of(cells=4000, slots=32, parallel=24, rows=64)
    running = [sequence([group], group) for group, size in enumerate(sizes) for _ in range(size)]
    for one in running:
        scheduler.add(one)
    for _ in range(40 * STEPS):
        compute(scheduler, memory, scheduler.schedule())
        written = [len(one.tokens) for one in running]
        assert max(written) - min(written) <= STEPS + 1
    assert min(written) > 40 * STEPS // len(sizes) - STEPS


def test_a_prompt_of_one_adapter_holds_the_streams_of_another_up_for_one_chunk_only() -> None:
    memory, pace = FakeMemory(8000), learned(0.1, 0.01, 0.001)
    scheduler = Scheduler(Limits(8000, 6, 4, 256), memory, pace=pace)
    talker, long = sequence([1, 2]), sequence(list(range(10, 2010)), 1)
    scheduler.add(talker)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(long)
    steps = []
    while long.computed < 2000:
        rows = scheduler.schedule()
        steps.append((rows[0].sequence is talker, sum(row.count for row in rows)))
        compute(scheduler, memory, rows)
    assert max(count for _, count in steps) == 2 * TILE, "as many tiles as fit the time that a stream may wait"
    assert not any(not one and not other for (one, _), (other, _) in itertools.pairwise(steps))
    assert sum(not talks for talks, _ in steps) == math.ceil(2000 / (2 * TILE))
    scheduler.finish(talker)
    scheduler.finish(long)
    scheduler.add(sequence(list(range(20, 2020)), 2))
    counts = [sum(row.count for row in rows) for rows in _steps(scheduler, memory, 12)]
    assert 256 in counts, "nobody waits, so nothing is held back"


def _steps(scheduler: Scheduler, memory: FakeMemory, count: int) -> Iterator[list[Row]]:
    for _ in range(count):
        rows = scheduler.schedule()
        yield rows
        compute(scheduler, memory, rows)
