"""Tokens computed ahead change nothing of an answer: greedy or drawn, right or wrong, to its very end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from engines import GREEDY, PROMPT, ids
from ingle.runtime.engine import drafts
from ingle.runtime.engine.constraint import Matcher
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.governor import Governor
from ingle.runtime.engine.lookup import Lookup
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Constraint, Request, Sampling

LOOP = "to be or not to be or not to be or not to be or not to be or"
REQUESTS = {
    "greedy": Request(LOOP, GREEDY, max_tokens=60, ignore_eos=True),
    "prose": Request(PROMPT, GREEDY, max_tokens=120, ignore_eos=True),
    "drawn": Request(LOOP, Sampling(temperature=0.7, seed=4), max_tokens=60, ignore_eos=True),
    "two": Request(LOOP, Sampling(temperature=0.5, seed=4), max_tokens=40, n=2, ignore_eos=True),
    "penalties": Request(LOOP, Sampling(temperature=0, repeat_penalty=1.05), max_tokens=60, ignore_eos=True),
    "constrained": Request(LOOP, GREEDY, max_tokens=40, constraint=Constraint("start: /( not to be or){1,9}/")),
    "to the window": Request(LOOP * 50, GREEDY, ignore_eos=True),
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of seven wherever anything is foretold, in seeded answers, too."""
    monkeypatch.setattr(Governor, "draft", lambda self, records, most, now: min(7, most // len(records) - 1))
    monkeypatch.setattr(drafts.Drafts, "lookup", lambda self, asked, resolved, tokens: Lookup(tokens))


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts whose fourth token is wrong."""
    right = Lookup.foretold

    def foretold(self: Lookup, count: int) -> list[int]:
        return [token if place != 3 else token + 1 for place, token in enumerate(right(self, count))]

    monkeypatch.setattr(Lookup, "foretold", foretold)


@pytest.fixture(scope="module")
def answers(bard_gguf: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Of an engine that computes nothing ahead."""
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32", speculate="off"))
    yield {name: told(engine, request) for name, request in REQUESTS.items()}
    engine.close()


def told(engine: Engine, request: Request) -> list[Any]:
    parts: dict[int, list[Any]] = {}
    for delta in engine.submit(request):
        parts.setdefault(delta.index, []).append((delta.text, delta.tokens, delta.stop_detail))
    return [("".join(part[0] for part in parts[one]), [t for part in parts[one] for t in part[1]]) for one in parts]


@pytest.mark.parametrize("wrong", [False, True], ids=["as foretold", "mistaken"])
def test_answers_are_the_same(
    wrong: bool, eager: None, answers: dict[str, Any], bard_gguf: Mapping[str, Path], request: pytest.FixtureRequest
) -> None:
    if wrong:
        request.getfixturevalue("mistaken")
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32"))
    try:
        for name, one in REQUESTS.items():
            assert told(engine, one) == answers[name], name
            engine._loop._scheduler.check()
        stats = engine.stats()
        assert stats.drafted_tokens > stats.accepted_tokens > (20 if wrong else 100)
        assert stats.generated_tokens == sum(len(tokens) for told in answers.values() for _, tokens in told)
    finally:
        engine.close()


def test_usage_tells_what_was_drafted(
    eager: None, bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Matcher, "forced", lambda self: [])
    engine = Engine(bard_gguf["f32"], LoadOptions())
    stream = engine.submit(REQUESTS["constrained"])
    written = len(ids(stream))
    assert stream.usage.drafted_tokens >= stream.usage.accepted_tokens > 20
    assert engine.stats().steps < written - 15
    engine.close()


def test_a_seed_and_an_option_keep_tokens_one_by_one(bard_gguf: Mapping[str, Path]) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions())
    seeded, free = Sampling(temperature=0.5, seed=1), Sampling(temperature=0.5)
    lookup = engine._loop._drafts.lookup
    assert lookup(seeded, seeded, []) is None
    assert lookup(free, dataclasses.replace(free, seed=5), []) is not None
    assert lookup(dataclasses.replace(seeded, temperature=0), GREEDY, []) is not None
    engine.close()
    off = Engine(bard_gguf["f32"], LoadOptions(speculate="off"))
    assert off._loop._drafts.lookup(GREEDY, GREEDY, []) is None
    off.close()
