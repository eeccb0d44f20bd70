"""The engine over the example checkpoint, in both its homes: a thread and a child process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from engines import GOLDEN, GREEDY, PROMPT, WINDOW, Home, ids, long_prompt
from ingle.convert.errors import (
    BadRequest,
    Cancelled,
    ContextLengthExceeded,
)
from ingle.runtime.engine.engine import Engine, EngineLike
from ingle.runtime.llama.vocab import Vocab
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Delta, Request, Sampling

TIE = 1e-3


@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_greedy_ids_are_those_of_transformers(bard_gguf: Mapping[str, Path], dtype: str) -> None:
    engine = Engine(bard_gguf[dtype])
    for case in GOLDEN:
        request = Request(tuple(case["prompt_ids"]), GREEDY, max_tokens=64, ignore_eos=True)
        assert ids(engine.submit(request)) == case["greedy_ids"], case["prompt"]
    engine.close()
    assert len(GOLDEN) >= 10


def test_concurrent_streams_each_get_what_they_get_alone(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f32"], LoadOptions(kv_type="f32"))
    requests = [
        Request(
            tuple(case["prompt_ids"]),
            GREEDY if number % 2 else Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=number),
            max_tokens=40,
            logprobs=2,
        )
        for number, case in enumerate(GOLDEN[:8])
    ]
    alone = [list(engine.submit(request)) for request in requests]
    streams = [engine.submit(request) for request in requests]
    for solo, stream in zip(alone, streams, strict=True):
        assert_same_up_to_a_tie(solo, list(stream))
    engine.close()


def assert_same_up_to_a_tie(solo: list[Delta], together: list[Delta]) -> None:
    """The same tokens, or different ones only where the two likeliest were as good as equal."""
    pairs = zip(tokens_of(solo), tokens_of(together), strict=False)
    parting = next(((a, b) for a, b in pairs if a.token != b.token), None)
    if parting is None:
        assert "".join(delta.text for delta in solo) == "".join(delta.text for delta in together)
    else:
        assert abs(parting[0].logprob - parting[1].logprob) < TIE, parting


def tokens_of(deltas: list[Delta]) -> list[object]:
    return [logprob for delta in deltas for logprob in delta.logprobs]


def test_a_conversation_that_comes_back_is_cached(engine: EngineLike) -> None:
    first, other = long_prompt(200), long_prompt(200, start=2000)
    for prompt in (first, other):
        ids(engine.submit(Request(prompt, GREEDY, max_tokens=20)))
    again = engine.submit(Request(first, GREEDY, max_tokens=20))
    ids(again)
    assert again.usage.cached_tokens == 199


def test_sixteen_requests_evaluate_a_shared_prefix_once(engine: EngineLike) -> None:
    prefix = long_prompt(1000)
    streams = [engine.submit(Request((*prefix, 10 + k, 60, 61, 62), GREEDY, max_tokens=3)) for k in range(16)]
    for stream in streams:
        ids(stream)
    generated = 16 * 2  # the third token of each is never evaluated
    assert engine.stats().evaluated_tokens <= 1000 + 16 * 4 + generated


def test_a_cancelled_prefill_stops_and_its_neighbour_goes_on(engine: EngineLike) -> None:
    case = GOLDEN[0]
    neighbour = engine.submit(Request(tuple(case["prompt_ids"]), GREEDY, max_tokens=64, ignore_eos=True))
    deltas = iter(neighbour)
    tokens = list(next(deltas).tokens)
    leaver = engine.submit(Request(long_prompt(1000), GREEDY))
    leaver.wait_accepted()
    evaluated = engine.stats().evaluated_tokens
    leaver.cancel()
    with pytest.raises(Cancelled):
        ids(leaver)
    tokens += [token for delta in deltas for token in delta.tokens]
    assert tokens == case["greedy_ids"]
    assert engine.stats().evaluated_tokens - evaluated < 700  # far from the whole prompt


def test_a_request_cancelled_in_the_queue_never_runs(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f16"], LoadOptions(parallel=1))
    first = engine.submit(Request(PROMPT, GREEDY, max_tokens=30, ignore_eos=True))
    first.wait_accepted()
    queued = engine.submit(Request(long_prompt(500), GREEDY))
    queued.wait_accepted()
    queued.cancel()
    with pytest.raises(Cancelled):
        ids(queued)
    assert len(ids(first)) == 30
    assert engine.stats().evaluated_tokens < 100
    engine.close()


def test_the_window_is_what_it_says_to_the_token(engine: EngineLike) -> None:
    fits = engine.submit(Request(long_prompt(WINDOW - 1), GREEDY, ignore_eos=True))
    assert [(delta.finish_reason, delta.stop_detail) for delta in fits] == [("length", "context_window")]
    too_long = engine.submit(Request(long_prompt(WINDOW), GREEDY))
    with pytest.raises(ContextLengthExceeded, match=r"1024 tokens.*window of 1024.*prompt of 1023") as caught:
        too_long.wait_accepted()
    assert (caught.value.prompt_tokens, caught.value.context_window) == (WINDOW, WINDOW)


def test_more_conversations_than_cells_all_finish(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f32"], LoadOptions(context_length=256, kv_cells=512, parallel=8, kv_type="f32"))
    requests = [Request(long_prompt(60, start=300 + 70 * k), GREEDY, max_tokens=100, ignore_eos=True) for k in range(8)]
    together = [engine.submit(request) for request in requests]
    answers = [ids(stream) for stream in together]
    assert all(len(answer) == 100 for answer in answers)
    assert engine.stats().preempted > 0
    assert answers[0] == ids(engine.submit(requests[0]))
    engine.close()


def test_background_work_lets_others_answer_first(engine: EngineLike) -> None:
    before = engine.stats().yielded_steps
    prompt = long_prompt(300, start=900)
    batches = [engine.submit(Request(prompt, GREEDY, 150, ignore_eos=True, priority="background")) for _ in range(3)]
    read = [iter(batch) for batch in batches]
    first = [next(deltas) for deltas in read]
    asked = engine.submit(Request(PROMPT, GREEDY, max_tokens=40, ignore_eos=True))
    assert len(ids(asked)) == 40
    late = engine.stats()
    assert late.yielded_steps - before >= 35
    assert late.running == 3
    for begun, deltas in zip(first, read, strict=True):
        assert len(begun.tokens) + sum(len(delta.tokens) for delta in deltas) == 150
    with pytest.raises(BadRequest, match="priority is 'urgent'"):
        engine.submit(Request(PROMPT, priority="urgent")).wait_accepted()  # type: ignore[arg-type]


def test_asyncio_reads_streams_side_by_side(engine: EngineLike) -> None:
    async def read() -> list[list[int]]:
        async def one(case: dict[str, list[int]]) -> list[int]:
            stream = engine.submit(Request(tuple(case["prompt_ids"]), GREEDY, max_tokens=16, ignore_eos=True))
            return [token async for delta in stream for token in delta.tokens]

        return await asyncio.gather(*(one(case) for case in GOLDEN[:4]))

    assert asyncio.run(read()) == [case["greedy_ids"][:16] for case in GOLDEN[:4]]


def test_many_threads_may_ask_at_once(engine: EngineLike) -> None:
    answers: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        prompt = tuple(GOLDEN[number]["prompt_ids"])
        answers[number] = ids(engine.submit(Request(prompt, GREEDY, max_tokens=16, ignore_eos=True)))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: GOLDEN[number]["greedy_ids"][:16] for number in range(6)}


def test_a_text_far_too_long_is_refused_without_tokenizing_it(
    bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(bard_gguf["f16"])
    monkeypatch.setattr(Vocab, "tokenize", None)
    with pytest.raises(ContextLengthExceeded, match="at least"):
        engine.submit(Request("To be or not to be. " * 1_000_000)).wait_accepted()
    engine.close()
