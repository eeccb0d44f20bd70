"""Groups of requests that cannot share a step, as those with different adapters: each is served as soon as is fair."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from ingle.runtime.engine.turns import STEPS, Turns
from test_runtime_scheduler import compute, scheduler_of, sequence

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
