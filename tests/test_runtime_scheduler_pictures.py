"""Pictures in the scheduler: a step of their own, never cut, and cells that only the same picture shares."""

from __future__ import annotations

import random

from ingle.runtime.engine.scheduler import Limits, Scheduler
from ingle.runtime.engine.sequence import Sequence, Span
from scheduling import FakeMemory, compute, run, scheduler_of, sequence


def showing(*parts: list[int] | int, positions: int | None = None) -> Sequence:
    """A prompt of texts and pictures; a picture is given by the number of its rows."""
    tokens: list[int] = []
    spans = []
    for part in parts:
        if isinstance(part, int):
            spans.append(Span(len(tokens), part, part if positions is None else positions, f"picture of {part}"))
            tokens += [-1000 * part - row for row in range(part)]
        else:
            tokens += part
    return Sequence(tokens, len(tokens), tuple(spans))


def test_a_picture_is_computed_whole_and_alone() -> None:
    scheduler, memory = scheduler_of(rows=4)
    seeing = showing([1, 2, 3, 4, 5], 20, [6], 3, [7])
    scheduler.add(seeing)
    scheduler.add(sequence([50, 51]))
    steps = []
    while seeing.computed < seeing.num_prompt:
        rows = scheduler.schedule()
        steps.append([(row.sequence is seeing, row.count, row.output) for row in rows])
        compute(scheduler, memory, rows)
    alone = [step for step in steps if len(step) == 1 and step[0][0]]
    assert (True, 20, False) in [step[0] for step in alone]
    assert (True, 3, False) in [step[0] for step in alone]
    assert all(count <= 4 for step in steps for _, count, _ in step if len(step) > 1)
    assert memory.content(seeing.slot) == seeing.tokens[: seeing.num_prompt]


def test_a_prompt_that_ends_with_a_picture_gets_its_answer_from_the_last_row() -> None:
    scheduler, memory = scheduler_of()
    seeing = showing([1, 2], 5)
    scheduler.add(seeing)
    compute(scheduler, memory, scheduler.schedule())
    (row,) = scheduler.schedule()
    assert (row.count, row.output) == (5, True)


def test_who_decodes_gets_a_step_between_two_pictures() -> None:
    scheduler, memory = scheduler_of(rows=8)
    talker = sequence([1, 2, 3])
    scheduler.add(talker)
    compute(scheduler, memory, scheduler.schedule())
    scheduler.add(showing([9], 10, 10, 10, [8]))
    served = []
    for _ in range(8):
        rows = scheduler.schedule()
        served.append(any(row.sequence is talker for row in rows))
        compute(scheduler, memory, rows)
    assert served.count(False) == 3
    assert "FalseFalse" not in "".join(map(str, served))


def test_adapters_take_turns_with_pictures_too_and_share_none() -> None:
    scheduler, memory = scheduler_of()
    for group in (0, 1, 0):
        prompt = showing([1, 2, 3], 6, [4, 5])
        prompt.group = group
        scheduler.add(prompt)
        run(scheduler, memory, answer=3)
    assert prompt.cached == 10
    scheduler, memory = scheduler_of()
    prompts = [showing([1, 2, 3], 6, [4, 5]) for _ in range(4)]
    for number, prompt in enumerate(prompts):
        prompt.group = number % 2
        scheduler.add(prompt)
    run(scheduler, memory, answer=3)
    assert all(len(prompt.tokens) == prompt.num_prompt + 3 for prompt in prompts)


def test_the_same_picture_is_shared_and_another_one_is_not() -> None:
    scheduler, memory = scheduler_of()
    scheduler.add(showing([1, 2, 3], 6, [4, 5]))
    run(scheduler, memory, answer=1)
    same, other = showing([1, 2, 3], 6, [4, 6]), showing([1, 2, 3], 7, [4, 5])
    for one, cached in ((same, 10), (other, 3)):
        scheduler.add(one)
        run(scheduler, memory, answer=1)
        assert one.cached == cached


def test_a_match_never_ends_within_a_picture() -> None:
    """A prompt that ends with the picture of another one would need all rows but the last."""
    scheduler, memory = scheduler_of()
    scheduler.add(showing([1, 2, 3], 6, [4]))
    run(scheduler, memory, answer=1)
    ending = showing([1, 2, 3], 6)
    scheduler.add(ending)
    (row,) = scheduler.schedule()
    assert (ending.cached, row.count, row.output) == (3, 6, True)


def test_positions_of_a_grid_are_counted_and_keep_cells_from_others() -> None:
    scheduler, memory = scheduler_of()
    seeing = showing([1, 2, 3], 12, [4, 5], positions=4)
    assert not seeing.shares
    scheduler.add(seeing)
    places = []
    while seeing.computed < seeing.num_prompt:
        rows = scheduler.schedule()
        places.append((rows[0].sequence.position, rows[0].count))
        compute(scheduler, memory, rows)
    assert places == [(0, 3), (3, 12), (7, 2)]
    scheduler.finish(seeing)
    assert scheduler.cells_used == 0
    scheduler.check()


def test_a_picture_waits_until_there_are_cells_for_all_of_it() -> None:
    scheduler, memory = scheduler_of(cells=60, rows=8)
    many = [showing([k], 20, [k + 50]) for k in range(3)]
    for one in many:
        scheduler.add(one)
    run(scheduler, memory, answer=12)
    assert memory.most <= 60
    assert all(len(one.tokens) == one.num_prompt + 12 for one in many)


def test_crowds_of_pictures_end_with_the_cells_they_should_have() -> None:
    dice = random.Random(3)
    for _ in range(60):
        memory = FakeMemory(dice.randint(70, 160))
        scheduler = Scheduler(Limits(memory.capacity, 6, 4, dice.randint(4, 20), 4000), memory)
        prompts = [
            showing([1, 2, dice.randint(3, 5)], dice.randint(4, 6), [dice.randint(7, 9)], dice.randint(10, 12), [1])
            for _ in range(8)
        ]
        for prompt in prompts:
            scheduler.add(prompt)
        run(scheduler, memory, answer=dice.randint(1, 9))
        assert memory.most <= memory.capacity
