"""Tokens that a grammar leaves no choice about are computed together, and the text is what it is token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import GREEDY, PROMPT, ids
from ingle.convert.errors import BadRequest
from ingle.runtime.chat import Output
from ingle.runtime.chat.formats import PLAIN
from ingle.runtime.chat.grammar import AnswerGrammar
from ingle.runtime.engine.constraint import Matcher
from ingle.runtime.engine.engine import Engine
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Constraint, Request, Sampling
from scheduling import compute, scheduler_of, sequence

KEYS = ("the_name_of_the_king_who_rules", "whether_it_is_a_tragedy", "the_number_of_players_on_the_stage")
SCHEMA = {
    "type": "object",
    "properties": dict(zip(KEYS, ({"enum": ["Henry", "John"]}, {"type": "boolean"}, {"enum": [1, 2]}), strict=True)),
    "required": list(KEYS),
    "additionalProperties": False,
}
RECORD = Constraint(AnswerGrammar(PLAIN, {}).of(output=Output("json", SCHEMA, "schema")))
CLOSE = Constraint(
    f'start: "{KEYS[0]}: " ("Henry" | "John") ", {KEYS[1]}: " ("true" | "false") '
    f'", {KEYS[2]}: " ("1" | "2") ", and that is all"'
)
SAYING = Constraint(
    'start: "So say we all, and so say all of us: " ("aye" | "nay") ", good my lord, and there an end."'
)
REQUESTS = {
    "a record": Request(PROMPT, GREEDY, constraint=RECORD),
    "a close record": Request(PROMPT, GREEDY, constraint=CLOSE),
    "a saying": Request(PROMPT, GREEDY, constraint=SAYING),
    "drawn": Request(PROMPT, Sampling(temperature=0.8, seed=3), constraint=SAYING),
    "penalties": Request(PROMPT, Sampling(temperature=0, repeat_penalty=1.3), constraint=CLOSE),
    "cut off": Request(PROMPT, GREEDY, max_tokens=5, constraint=SAYING),
    "a stop string": Request(PROMPT, GREEDY, stop=("of us",), constraint=SAYING),
    "two": Request(PROMPT, GREEDY, n=2, constraint=SAYING),
}


@pytest.fixture(scope="module")
def engine(bard_gguf: Mapping[str, Path]) -> Iterator[Engine]:
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32", parallel=4))
    yield engine
    engine.close()


def told(engine: Engine, request: Request) -> list[tuple[str, list[int], str | None]]:
    """Of each choice its text, its tokens, and why it ended."""
    found: dict[int, Any] = {}
    for delta in engine.submit(request):
        text, tokens, _ = found.get(delta.index, ("", [], None))
        found[delta.index] = text + delta.text, [*tokens, *delta.tokens], delta.stop_detail
    return [found[index] for index in sorted(found)]


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Matcher, "forced", lambda self: [])


@pytest.mark.parametrize("name", REQUESTS)
def test_the_text_is_what_it_is_token_by_token(name: str, engine: Engine, request: pytest.FixtureRequest) -> None:
    before = engine.stats()
    together = told(engine, REQUESTS[name])
    after = engine.stats()
    request.getfixturevalue("one_by_one")
    alone = told(engine, REQUESTS[name])
    engine._loop._scheduler.check()
    assert [(text, why) for text, _, why in together] == [(text, why) for text, _, why in alone]
    tokens = sum(len(one) for _, one, _ in together)
    ends = sum(why == "eos" for _, _, why in together)
    assert after.generated_tokens - before.generated_tokens == tokens + ends
    assert after.forced_tokens - before.forced_tokens >= (40 if name == "a record" else tokens // 2)
    for text, one, why in together:
        assert engine.detokenize(one).startswith(text) and (why == "stop_string" or engine.detokenize(one) == text)


def test_a_run_is_one_step(engine: Engine) -> None:
    before = engine.stats()
    ((text, tokens, _),) = told(engine, REQUESTS["a close record"])
    steps = engine.stats().steps - before.steps
    assert all(key in text for key in KEYS)
    assert steps < len(tokens) / 3


def test_probabilities_and_biases_are_those_of_single_tokens(engine: Engine) -> None:
    before = engine.stats().forced_tokens
    stream = engine.submit(Request(PROMPT, GREEDY, logprobs=2, constraint=SAYING))
    told_of = [one for delta in stream for one in delta.logprobs]
    assert len(told_of) == stream.usage.completion_tokens - 1  # but for the end
    ids(engine.submit(Request(PROMPT, Sampling(temperature=0, logit_bias={300: -1.0}), constraint=SAYING)))
    assert engine.stats().forced_tokens == before


def test_neighbours_write_what_they_write_alone(engine: Engine) -> None:
    other = Request(PROMPT, GREEDY, max_tokens=60, ignore_eos=True)
    alone = told(engine, other)
    records = told(engine, REQUESTS["a record"])
    with ThreadPoolExecutor(4) as pool:
        beside = [pool.submit(told, engine, one) for one in (other, REQUESTS["a record"]) * 2]
        assert [one.result() for one in beside] == [alone, records] * 2


def test_those_who_wait_for_cells_of_each_other_do_not_wait_for_ever() -> None:
    """Two answers get forced tokens at once, and the cache has room for those of one."""
    scheduler, memory = scheduler_of(40, rows=64)
    both = sequence(list(range(10))), sequence(list(range(100, 110)))
    for one in both:
        scheduler.add(one)
    for _ in range(2):
        compute(scheduler, memory, scheduler.schedule())
    for one in both:
        one.tokens += range(500, 514)
    scheduler.unsettle()
    for _ in range(4):
        compute(scheduler, memory, scheduler.schedule())
        scheduler.check()
    assert both[0].decoding and scheduler.preempted == 1


def test_a_request_that_forbids_what_its_grammar_demands_is_to_blame(engine: Engine) -> None:
    """A bias of -inf is never, as llama.cpp's ``false``."""
    every = dict.fromkeys(range(engine.info.vocabulary), -math.inf)
    with pytest.raises(BadRequest, match="forbids every token"):
        ids(engine.submit(Request(PROMPT, Sampling(temperature=0, logit_bias=every), constraint=SAYING)))
    either = Constraint('start: "a" | "n"')
    for letter, other in (("a", "n"), ("n", "a")):
        (token,) = engine.tokenize(letter, add_special=False)
        never = Sampling(temperature=0, logit_bias={token: -math.inf})
        assert engine.detokenize(ids(engine.submit(Request(PROMPT, never, constraint=either)))) == other
