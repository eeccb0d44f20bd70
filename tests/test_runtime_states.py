"""Models whose state cannot be cut: a conversation goes on from a copy of it, and only from one of all its tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import sweeping
from engines import GREEDY, ids
from ingle.convert import convert
from ingle.runtime.engine.constraint import Matcher
from ingle.runtime.engine.engine import Engine
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Constraint, Request
from scheduling import compute, run, scheduler_of, sequence

KEEPING = LoadOptions(kv_type="f32", parallel=2)
PLAIN = LoadOptions(kv_type="f32", parallel=2, prefix_cache=False)


def turn(engine: Engine, prompt: list[int]) -> tuple[list[int], int]:
    stream = engine.submit(Request(tuple(prompt), GREEDY, max_tokens=8, ignore_eos=True))
    return ids(stream), stream.usage.cached_tokens


@pytest.mark.parametrize("name", ["mamba", "lfm2", "qwen3_5"])
def test_the_next_turn_of_a_recurrent_model_reads_what_is_new(name: str, tmp_path: Path) -> None:
    folder = sweeping.write_checkpoint(tmp_path / name, sweeping.load(name))
    path = convert(folder, tmp_path / "model.gguf", "f32").path
    engine, plain = Engine(path, KEEPING), Engine(path, PLAIN)
    first = list(range(20, 60))
    answer, cached = turn(engine, first)
    assert (answer, cached) == (turn(plain, first)[0], 0)
    second = [*first, *answer, *range(100, 110)]
    assert turn(engine, second) == (turn(plain, second)[0], len(first) + len(answer) - 1)
    other = [*first, *range(200, 210)]  # another answer to the same words
    assert turn(engine, other) == (turn(plain, other)[0], len(first))
    parted = [*first[:-1], 7, 8, 9]
    assert turn(engine, parted) == (turn(plain, parted)[0], 0)
    assert turn(plain, second)[1] == 0
    engine.close()
    plain.close()


@pytest.mark.parametrize("name", ["mamba", "lfm2"])
def test_forced_text_is_computed_together(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweeping.write_checkpoint(tmp_path / name, sweeping.load(name))
    engine = Engine(convert(folder, tmp_path / "model.gguf", "f32").path, KEEPING)
    saying = Constraint('start: "ab ab ab ab " /[c-f]/ " ab ab ab ab " /[c-f]/ " ba"')
    request = Request(tuple(range(20, 60)), GREEDY, constraint=saying)
    together, steps = engine.detokenize(ids(engine.submit(request))), engine.stats().steps
    forced = engine.stats().forced_tokens
    monkeypatch.setattr(Matcher, "forced", lambda self: [])
    assert engine.detokenize(ids(engine.submit(request))) == together
    assert forced > 10 and steps < engine.stats().steps - steps - 10
    engine.close()


def test_states_keep_to_their_bytes_and_the_least_recently_used_go() -> None:
    scheduler, memory = scheduler_of(1000, parked_bytes=8 * 330, whole=True)
    prompts = [list(range(start, start + 80)) for start in (1000, 2000, 3000)]
    for prompt in (prompts[0], prompts[1], prompts[0], prompts[2]):
        scheduler.add(sequence(prompt))
        run(scheduler, memory, answer=2)
    assert scheduler.cache.parked.bytes <= 8 * 330
    assert memory.cells == []
    assert [scheduler.cache.parked.longest([*prompt, 1])[0] for prompt in prompts] == [80, 0, 80]


def test_who_gave_a_state_back_goes_on_with_it() -> None:
    scheduler, memory = scheduler_of(220, slots=6, parallel=2, parked_bytes=1 << 20, whole=True)
    for start in (1000, 2000):
        scheduler.add(sequence(list(range(start, start + 40))))
    rows = run(scheduler, memory, answer=100)
    assert scheduler.preempted > 0
    assert rows == 2 * (40 + 99)


def test_an_aborted_step_begins_anew_from_the_prompts_state() -> None:
    scheduler, memory = scheduler_of(1000, rows=16, parked_bytes=1 << 20, whole=True)
    one = sequence(list(range(48)))
    scheduler.add(one)
    for _ in range(5):
        compute(scheduler, memory, scheduler.schedule())
    scheduler.restart(one)
    scheduler.schedule()
    assert one.computed == 48
