"""The scheduler and the prefix cache against a model of the KV cache that knows every cell."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ingle.runtime.engine.parked import Parked, common_length
from ingle.runtime.engine.prefix_cache import PrefixCache
from ingle.runtime.engine.scheduler import Limits, Scheduler
from ingle.runtime.engine.sequence import Sequence
from ingle.runtime.engine.turns import STEPS, Turns
from scheduling import FakeDisk, FakeMemory, compute, run, scheduler_of, sequence


def test_a_few_rows_of_a_prompt_share_the_step_of_those_who_decode() -> None:
    scheduler, memory = scheduler_of()
    talker = sequence([1, 2, 3])
    scheduler.add(talker)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(sequence(list(range(100, 150))))
    rows = scheduler.schedule()
    assert [(row.sequence is talker, row.count, row.output) for row in rows] == [(True, 1, True), (False, 15, False)]


def test_a_step_in_which_nobody_came_or_went_is_the_one_before() -> None:
    scheduler, memory = scheduler_of(cells=20)
    talkers = [sequence([1, 2, 3]), sequence([7, 8])]
    for talker in talkers:
        scheduler.add(talker)
    for _ in range(2):  # their prompts, and the first step of both
        compute(scheduler, memory, scheduler.schedule())
    first = scheduler.schedule()
    assert [row.sequence for row in first] == talkers
    compute(scheduler, memory, first)
    assert scheduler.schedule() is first
    late = sequence([4])
    scheduler.add(late)
    compute(scheduler, memory, scheduler.schedule())
    assert scheduler.schedule() is not first
    scheduler.finish(talkers[0])
    assert talkers[0] not in [row.sequence for row in scheduler.schedule()]
    for _ in range(20):  # more than the cells can hold
        compute(scheduler, memory, scheduler.schedule())
        scheduler.check()
    assert scheduler.preempted > 0


def test_a_short_prompt_overtakes_a_long_one_but_cannot_starve_it() -> None:
    scheduler, memory = scheduler_of(4000, slots=40, parallel=20)
    long = sequence(list(range(300)))
    scheduler.add(long)
    for step in range(400):
        scheduler.add(sequence([10_000 + step * 20 + k for k in range(16)]))
        rows = scheduler.schedule()
        compute(scheduler, memory, rows)
        for one in list(scheduler.running):
            if len(one.tokens) > one.num_prompt:
                scheduler.finish(one)
        if long.computed >= 300:
            break
    assert long.computed >= 300


def test_a_step_that_ends_a_prompt_is_a_short_one() -> None:
    scheduler, memory = scheduler_of(4000, rows=256)
    long, short = sequence(list(range(1000))), sequence(list(range(2000, 2040)))
    scheduler.add(long)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(short)
    rows = scheduler.schedule()
    assert [(row.sequence, row.count, row.output) for row in rows] == [(short, 40, True), (long, 24, False)]


def test_sixteen_requests_compute_a_shared_prefix_once() -> None:
    scheduler, memory = scheduler_of(4000, slots=32, parallel=16, rows=64)
    prefix = list(range(1000))
    for number in range(16):
        scheduler.add(sequence([*prefix, *range(2000 + number * 10, 2000 + number * 10 + 8)]))
    assert run(scheduler, memory, answer=1) == 1000 + 16 * 8


def test_a_conversation_comes_back_to_its_cells() -> None:
    scheduler, memory = scheduler_of(1000)
    first, other = list(range(100)), list(range(500, 600))
    for prompt in (first, other, first):
        scheduler.add(sequence(prompt))
        again = scheduler.waiting[0]
        run(scheduler, memory, answer=5)
    assert again.cached == 99


def test_the_next_turn_reuses_prompt_and_answer() -> None:
    scheduler, memory = scheduler_of(1000)
    turn = sequence(list(range(50)))
    scheduler.add(turn)
    run(scheduler, memory, answer=7)
    following = sequence([*turn.tokens, 7, 8, 9])
    scheduler.add(following)
    run(scheduler, memory, answer=1)
    assert following.cached == len(turn.tokens) - 1  # the last token of the answer was never computed


def test_cells_run_out_and_nobody_fails() -> None:
    scheduler, memory = scheduler_of(80, slots=6, parallel=4, rows=16)
    for number in range(8):
        scheduler.add(sequence([number * 100 + k for k in range(10)]))
    run(scheduler, memory, answer=40)
    assert scheduler.preempted > 0
    assert memory.most <= 80
    assert not scheduler.waiting
    assert not scheduler.running


def crowd(cells: int, parked_bytes: int) -> tuple[int, int]:
    """Four times what the cells can hold: pushes out, and tokens computed twice."""
    scheduler, memory = scheduler_of(cells, slots=20, parallel=16, rows=64, parked_bytes=parked_bytes)
    for number in range(32):
        scheduler.add(sequence([number * 100 + k for k in range(20)]))
    rows = run(scheduler, memory, answer=cells // 8)
    assert memory.most <= cells
    return scheduler.preempted, rows - 32 * (20 + cells // 8 - 1)


def test_who_gave_its_cells_back_goes_on_where_it_was() -> None:
    assert 0 < crowd(640, parked_bytes=1 << 20)[1] < crowd(640, parked_bytes=0)[1] / 4


def test_nobody_starts_who_would_only_push_others_out() -> None:
    assert 0 < crowd(640, parked_bytes=1 << 20)[0] < 32, "each was pushed out more than once"


def test_a_prompt_that_another_one_outgrew_is_read_on_when_that_one_ends() -> None:
    scheduler, memory = scheduler_of(64, slots=4, parallel=2, rows=8)
    talker, reader = sequence([1, 2]), sequence(list(range(100, 140)))
    scheduler.add(talker)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(reader)
    while len(talker.tokens) < 50:
        compute(scheduler, memory, [row for row in scheduler.schedule() if row.sequence is talker])
    scheduler.finish(talker)
    assert run(scheduler, memory, answer=1) == 40


def test_a_cancelled_prompt_leaves_its_chunk_for_the_next() -> None:
    scheduler, memory = scheduler_of(1000)
    prompt = list(range(100))
    leaver = sequence(prompt)
    scheduler.add(leaver)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.finish(leaver)
    follower = sequence(prompt)
    scheduler.add(follower)
    scheduler.schedule()
    assert follower.cached == 16


def conversation(scheduler: Scheduler, memory: FakeMemory, tokens: list[int]) -> Sequence:
    one = sequence(tokens)
    scheduler.add(one)
    run(scheduler, memory, answer=1)
    return one


def test_conversations_leave_the_kv_cache_for_ordinary_memory_and_come_back() -> None:
    scheduler, memory = scheduler_of(2000, rows=64, parked_bytes=1 << 20)
    prompts = [list(range(number * 1000, number * 1000 + 100)) for number in range(1, 6)]
    for prompt in prompts:
        conversation(scheduler, memory, prompt)
        assert len(memory.cells) == scheduler.cells_used == 100, "idle cells cost time in every step"
    for prompt in prompts:
        assert conversation(scheduler, memory, prompt).cached == 99
    assert len(scheduler.cache.parked) == 4


def test_half_a_parked_conversation_is_used_and_the_whole_stays() -> None:
    scheduler, memory = scheduler_of(2000, rows=64, parked_bytes=1 << 20)
    first = list(range(100))
    conversation(scheduler, memory, first)
    conversation(scheduler, memory, list(range(500, 600)))
    branch = conversation(scheduler, memory, [*first[:40], *range(700, 760)])
    assert branch.cached == 40
    assert conversation(scheduler, memory, first).cached == 99


def test_what_a_running_request_shares_is_not_parked() -> None:
    scheduler, memory = scheduler_of(2000, rows=64, parked_bytes=1 << 20)
    head = list(range(100))
    conversation(scheduler, memory, head)
    again = conversation(scheduler, memory, [*head, 7, 8, 9])
    assert (again.cached, len(scheduler.cache.parked), scheduler.cells_used) == (100, 0, 103)


def test_parked_conversations_keep_to_their_bytes() -> None:
    scheduler, memory = scheduler_of(2000, rows=64, parked_bytes=2000)
    for number in range(5):
        conversation(scheduler, memory, list(range(number * 1000, number * 1000 + 100)))
    assert (len(scheduler.cache.parked), scheduler.cache.parked.bytes) == (2, 1600)
    conversation(scheduler, memory, list(range(9000, 9300)))
    conversation(scheduler, memory, list(range(8000, 8100)))
    assert scheduler.cache.parked.bytes <= 2000


def test_a_longer_copy_replaces_the_one_it_continues() -> None:
    parked = Parked(1000)
    for tokens in ([1, 2, 3], [1, 2, 3, 4]):
        assert parked.make_room(tokens, 4 * len(tokens))
        parked.put(tokens, np.zeros(4 * len(tokens), np.uint8))
    assert (len(parked), parked.bytes) == (1, 16)
    assert parked.longest([1, 2, 9])[0] == 2
    assert parked.longest([5]) == (0, None)


def test_room_is_made_before_a_copy_is() -> None:
    parked = Parked(20)
    parked.put([1], np.zeros(12, np.uint8))
    assert parked.make_room([2], 12)
    assert parked.bytes == 0, "both together would be more than there may be"
    assert not parked.make_room([3], 21)
    assert not parked.make_room([3], 0)


def test_without_memory_for_copies_conversations_stay_in_the_kv_cache() -> None:
    scheduler, memory = scheduler_of(2000, rows=64)
    for number in range(2):
        conversation(scheduler, memory, list(range(number * 1000, number * 1000 + 100)))
    assert (len(scheduler.cache.idle_slots), scheduler.cells_used) == (2, 200)


def test_without_sharing_every_prompt_is_computed() -> None:
    memory = FakeMemory(1000)
    scheduler = Scheduler(Limits(1000, 4, 4, 64), memory, share=False)
    for _ in range(2):
        scheduler.add(sequence(list(range(100))))
    assert run(scheduler, memory, answer=1) == 200
    assert memory.cells == []


def test_an_integrity_fault_is_noticed() -> None:
    cache = PrefixCache(FakeMemory(10), max_idle_slots=1)
    cache.adopt(0, [], cache.match([]))
    cache.extend(0, 0, [1, 2, 3])
    cache.check()
    cache.cells += 1
    with pytest.raises(RuntimeError, match="3 tokens, but counts 4"):
        cache.check()


def test_common_length() -> None:
    for first, second in itertools.product(itertools.product([0, 1], repeat=4), repeat=2):
        expected = next((k for k in range(4) if first[k] != second[k]), 4)
        assert common_length(first, second) == expected


def test_groups_share_no_cells_and_take_turns() -> None:
    scheduler, memory = scheduler_of(cells=400, slots=8, parallel=6, rows=16)
    prompt = list(range(40))
    for group in (0, 1, 0, 2):
        scheduler.add(sequence(prompt, group))
    groups = []
    for _ in range(90):
        rows = scheduler.schedule()
        groups.append(rows[0].sequence.group)
        compute(scheduler, memory, rows)
    turns = [(group, len(list(same))) for group, same in itertools.groupby(groups)]
    assert [group for group, _ in turns[:7]] == [0, 1, 2, 0, 1, 2, 0]
    assert {length for _, length in turns[6:-1]} == {STEPS}, "once the prompts are read"
    shared = {(one.group, (one.cached or 0) > 0) for one in scheduler.running}
    assert shared == {(0, False), (0, True), (1, False), (2, False)}, "only the second of a group finds something"
    late = sequence(prompt, 1)
    scheduler.add(late)
    scheduler.schedule()
    assert late.cached == 39


def test_a_group_that_cannot_go_on_lets_others() -> None:
    turns = Turns()
    assert turns.order([]) == []
    turns.take(5)
    assert turns.order([3, 5, 4, 5]) == [5, 3, 4]
    for _ in range(STEPS - 1):
        turns.take(5)
    assert turns.order([3, 5, 4]) == [3, 4, 5]
    assert turns.order([5]) == [5]
    turns.take(3)
    assert turns.order([3, 5, 4]) == [3, 4, 5]


class Traffic(RuleBasedStateMachine):
    """Any order of arrivals, steps, ends and cancellations keeps every slot's content right and every cell counted."""

    @initialize(
        cells=st.integers(40, 150),
        slots=st.integers(3, 6),
        rows=st.integers(3, 20),
        parked_bytes=st.sampled_from([0, 400, 20_000]),
        disk=st.booleans(),
    )
    def start(self, cells: int, slots: int, rows: int, parked_bytes: int, disk: bool) -> None:
        self.limits: dict[str, Any] = {
            "slots": slots,
            "parallel": slots - 1,
            "rows": rows,
            "parked_bytes": parked_bytes,
            "disk": FakeDisk(loses=True) if disk else None,
        }
        self.scheduler, self.memory = scheduler_of(cells, **self.limits)
        self.cells = cells
        self.prompts: list[list[int]] = []

    @rule(
        stem=st.integers(0, 2),
        length=st.integers(1, 60),
        tail=st.lists(st.integers(0, 2), max_size=6),
        group=st.sampled_from([0, 0, 0, 1, 2]),
        priority=st.sampled_from(["interactive", "normal", "normal", "background"]),
    )
    def arrive(self, stem: int, length: int, tail: list[int], group: int, priority: str) -> None:
        prompt = [stem * 100 + k for k in range(length)] + tail
        if len(prompt) < self.cells:
            self.prompts.append(prompt)
            self.scheduler.add(sequence(prompt, group, priority))

    @precondition(lambda self: self.prompts)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        self.scheduler.add(sequence(data.draw(st.sampled_from(self.prompts))))

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        for _ in range(times):
            rows = self.scheduler.schedule()
            assert rows or not (self.scheduler.waiting or self.scheduler.running), "somebody waits, nothing is computed"
            assert len({row.sequence.group for row in rows}) < 2, "a step has one set of adapters"
            compute(self.scheduler, self.memory, rows)
            for one in list(self.scheduler.running):
                if len(one.tokens) >= self.cells:
                    self.scheduler.finish(one)

    @precondition(lambda self: any(one.decoding for one in self.scheduler.running))
    @rule(data=st.data(), count=st.integers(1, 30))
    def force(self, data: st.DataObject, count: int) -> None:
        """A grammar leaves no choice about the next tokens."""
        one = data.draw(st.sampled_from([one for one in self.scheduler.running if one.decoding]))
        one.tokens += [2000 + k for k in range(min(count, self.cells - len(one.tokens)))]
        self.scheduler.unsettle()

    @rule(times=st.integers(1, 8))
    def rest(self, times: int) -> None:
        for _ in range(times):
            self.scheduler.keep_one()

    @precondition(lambda self: not self.scheduler.running and not self.scheduler.waiting)
    @rule()
    def begin_anew(self) -> None:
        self.scheduler, self.memory = scheduler_of(self.cells, **self.limits)

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.scheduler.finish(data.draw(st.sampled_from(self.scheduler.running)))

    @precondition(lambda self: self.scheduler.waiting)
    @rule(data=st.data())
    def cancel_waiting(self, data: st.DataObject) -> None:
        self.scheduler.finish(data.draw(st.sampled_from(list(self.scheduler.waiting))))

    @invariant()
    def everything_adds_up(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.scheduler.check()
        assert len(self.memory.cells) == self.scheduler.cells_used
        assert self.scheduler.cache.parked.bytes <= 20_000
        for one in self.scheduler.running:
            assert self.memory.content(one.slot) == one.keys(0, one.computed)


Traffic.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
