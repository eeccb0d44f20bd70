"""How the engine chooses tokens: seeds, samplers, biases, stop strings, log-probabilities; and what it refuses."""

from __future__ import annotations

import math

import pytest
from engines import GOLDEN, GREEDY, PROMPT, ids, long_prompt
from ingle.convert.errors import (
    BadRequest,
)
from ingle.runtime.engine.engine import EngineLike
from ingle.runtime.request import Request, Sampling


def test_choices_share_the_prompt_and_differ_in_their_seed(engine: EngineLike) -> None:
    prompt = long_prompt(300)
    before = engine.stats().evaluated_tokens
    stream = engine.submit(Request(prompt, Sampling(temperature=1, seed=3), max_tokens=8, n=4, ignore_eos=True))
    texts = {index: [] for index in range(4)}  # type: dict[int, list[int]]
    for delta in stream:
        texts[delta.index] += delta.tokens
    assert all(len(tokens) == 8 for tokens in texts.values())
    assert len({tuple(tokens) for tokens in texts.values()}) > 1
    assert engine.stats().evaluated_tokens - before <= 300 + 4 * 8
    assert stream.usage.completion_tokens == 32


def test_a_seed_repeats_and_no_seed_does_not(engine: EngineLike) -> None:
    def draw(seed: int | None) -> list[int]:
        sampling = Sampling(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=seed)
        return ids(engine.submit(Request(PROMPT, sampling, max_tokens=24, ignore_eos=True)))

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("sampling", [Sampling(temperature=1, top_k=1), Sampling(temperature=1, min_p=1.0)])
def test_truncation_to_one_candidate_is_greedy(engine: EngineLike, sampling: Sampling) -> None:
    case = GOLDEN[0]
    request = Request(tuple(case["prompt_ids"]), sampling, max_tokens=16, ignore_eos=True)
    assert ids(engine.submit(request)) == case["greedy_ids"][:16]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1, typical_p=0.5, seed=1),
        Sampling(temperature=1, xtc_probability=1.0, xtc_threshold=0.05, seed=1),
        Sampling(temperature=1, mirostat=1, seed=1),
        Sampling(temperature=1, mirostat=2, seed=1),
        Sampling(temperature=0, repeat_penalty=1.8, repeat_last_n=-1),
        Sampling(temperature=0, frequency_penalty=1.5),
        Sampling(temperature=0, presence_penalty=1.5),
        Sampling(temperature=0, dry_multiplier=4.0, dry_allowed_length=1, dry_sequence_breakers=("\n",)),
    ],
)
def test_each_sampler_changes_the_text_and_repeats_itself(engine: EngineLike, sampling: Sampling) -> None:
    plain = Sampling(temperature=sampling.temperature, top_k=0, top_p=1, min_p=0, seed=1)
    loop = tuple(engine.tokenize("to be or not to be or not to be or not to be or"))

    def draw(one: Sampling) -> list[int]:
        return ids(engine.submit(Request(loop, one, max_tokens=24, ignore_eos=True)))

    assert draw(sampling) == draw(sampling)
    assert draw(sampling) != draw(plain)


def test_a_bias_forces_and_forbids_tokens(engine: EngineLike) -> None:
    token = engine.tokenize(" love")[0]
    forced = Request(PROMPT, Sampling(temperature=0, logit_bias={token: 100.0}), max_tokens=3)
    assert ids(engine.submit(forced)) == [token] * 3
    first = ids(engine.submit(Request(PROMPT, GREEDY, max_tokens=1)))[0]
    forbidden = Request(PROMPT, Sampling(temperature=0, logit_bias={first: -100.0}), max_tokens=20)
    assert first not in ids(engine.submit(forbidden))


def test_stop_strings_end_the_answer_before_them(engine: EngineLike) -> None:
    whole = engine.submit(Request(PROMPT, GREEDY, max_tokens=30, ignore_eos=True)).text()
    stop = whole[8:12]
    deltas = list(engine.submit(Request(PROMPT, GREEDY, max_tokens=30, ignore_eos=True, stop=(stop, "zzz"))))
    assert "".join(delta.text for delta in deltas) == whole[: whole.index(stop)]
    assert deltas[-1].stop_detail == "stop_string"


def test_logprobs_are_those_of_the_whole_distribution(engine: EngineLike) -> None:
    request = Request(PROMPT, GREEDY, max_tokens=5, logprobs=20)
    for token in (logprob for delta in engine.submit(request) for logprob in delta.logprobs):
        assert token.logprob == token.top[0].logprob
        assert token.piece == token.top[0].piece
        values = [one.logprob for one in token.top]
        assert values == sorted(values, reverse=True)
        assert 0.1 < sum(math.exp(value) for value in values) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Request("x", Sampling(temperature=-1)), "temperature"),
        (Request("x", Sampling(temperature=math.nan)), "temperature"),
        (Request("x", Sampling(top_p=0)), "top_p"),
        (Request("x", Sampling(min_p=2)), "min_p"),
        (Request("x", Sampling(presence_penalty=math.inf)), "presence_penalty"),
        (Request("x", Sampling(logit_bias={10**6: 1.0})), "logit_bias"),
        (Request("x", max_tokens=0), "max_tokens"),
        (Request("x", n=0), "n"),
        (Request("x", stop=("a", "")), "stop"),
        (Request("x", logprobs=21), "logprobs"),
        (Request((1, 10**6)), "prompt"),
        (Request((1, -1)), "prompt"),
        (Request(()), "prompt"),
        (Request("\ud800"), "prompt"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(engine: EngineLike, request_: Request, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        engine.submit(request_).wait_accepted()
    assert caught.value.param == param


def test_a_look_back_longer_than_any_memory_is_the_window(engine: EngineLike) -> None:
    sampling = Sampling(
        temperature=0, repeat_penalty=1.2, repeat_last_n=2**31 - 1, dry_multiplier=1.0, dry_penalty_last_n=2**31 - 1
    )
    assert len(ids(engine.submit(Request(PROMPT, sampling, max_tokens=4, ignore_eos=True)))) == 4
