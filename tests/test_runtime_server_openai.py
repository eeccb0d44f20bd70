"""The official client against a real server: every field, every shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_model import PIECES, FakeCatalog
from ingle.runtime.request import Sampling
from served import Served, served

HELLO: Any = [{"role": "user", "content": "hi there"}]
TEXT = "".join(PIECES)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", "org/other:Q8_0")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == "fake"
    assert answer.system_fingerprint is not None and answer.system_fingerprint.startswith("fp_")
    assert [choice.message.content for choice in answer.choices] == [TEXT]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 5, 7)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_chat_streamed_is_chat_in_pieces(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="fake", messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert [text for text in texts if text] == list(PIECES)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7


def test_without_include_usage_there_is_no_usage_chunk(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model="fake", messages=HELLO, stream=True) as stream:
        assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_length_is_told_from_stop(client: openai.OpenAI) -> None:
    answer: Any = client.chat.completions.create(model="fake", messages=HELLO, max_completion_tokens=2)
    assert answer.choices[0].message.content == "Once upon"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].ingle == {"stop_detail": "max_tokens"}


def test_n_choices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO, n=2)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, TEXT), (1, TEXT)]


def test_n_choices_streamed_end_one_by_one(client: openai.OpenAI) -> None:
    texts, endings = {0: "", 1: "", 2: ""}, []
    with client.chat.completions.create(model="fake", messages=HELLO, n=3, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                endings += [choice.index] if choice.finish_reason else []
    assert texts == {0: TEXT, 1: TEXT, 2: TEXT}
    assert sorted(endings) == [0, 1, 2]


def test_chat_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="fake", messages=HELLO, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert [token.token for token in content] == list(PIECES)
    assert content[0].bytes == list(b"Once")
    assert [top.logprob for top in content[0].top_logprobs] == [-1.0, -2.0]


def test_no_logprobs_unless_asked(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="fake", messages=HELLO).choices[0].logprobs is None


def test_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="hi there")
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert [choice.text for choice in answer.choices] == [TEXT]
    assert answer.usage is not None
    assert answer.usage.total_tokens == 7


def test_completion_logprobs_count_characters(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="fake", prompt="hi", logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == list(PIECES)
    assert logprobs.text_offset == [0, 4, 9, 11, 16]
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"Once": -1.0}


def test_streamed_completion_logprobs_go_on_counting(client: openai.OpenAI) -> None:
    with client.completions.create(model="fake", prompt="hi", logprobs=0, stream=True) as stream:
        logprobs = [chunk.choices[0].logprobs for chunk in stream]
    assert [offset for piece in logprobs if piece for offset in piece.text_offset or ()] == [0, 4, 9, 11, 16]


def test_a_list_of_prompts_longer_than_the_engine_takes_at_once(client: openai.OpenAI, server: Served) -> None:
    before = len(server.model.works)
    answer = client.completions.create(model="fake", prompt=[f"prompt {number}" for number in range(10)], n=2)
    assert [choice.index for choice in answer.choices] == list(range(20))
    asked = [str(work.prompt) for work in server.model.works[before:]]
    assert sorted(asked) == [f"prompt {number}" for number in range(10)]  # those that wait start in any order
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 20


@pytest.mark.parametrize(
    ("prompt", "expected"), [([1, 2, 3], [(1, 2, 3)]), ([[1, 2], [3]], [(1, 2), (3,)]), (["a", "b"], ["a", "b"])]
)
def test_prompts_as_ids_and_lists(client: openai.OpenAI, server: Served, prompt: Any, expected: Any) -> None:
    before = len(server.model.works)
    answer = client.completions.create(model="fake", prompt=prompt)
    assert len(answer.choices) == len(expected)
    assert [work.prompt for work in server.model.works[before:]] == expected


@pytest.mark.parametrize("priority", ["interactive", "background", None])
def test_priorities_reach_the_engine(client: openai.OpenAI, server: Served, priority: str | None) -> None:
    extra = {"priority": priority} if priority else {}
    client.chat.completions.create(model="fake", messages=HELLO, extra_body=extra)
    client.completions.create(model="fake", prompt="hi", extra_body=extra)
    assert [work.asked.get("priority") for work in server.model.works[-2:]] == [priority] * 2
    with pytest.raises(openai.BadRequestError, match="'interactive', 'normal' or 'background'"):
        client.completions.create(model="fake", prompt="hi", extra_body={"priority": 5})


def test_every_sampling_field_reaches_the_engine(client: openai.OpenAI, server: Served) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repeat_penalty": 1.1,
        "repeat_last_n": 32,
        "frequency_penalty": 0.3,
        "presence_penalty": -0.3,
        "dry_multiplier": 0.8,
        "dry_base": 1.5,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 100,
        "dry_sequence_breakers": ["\n"],
        "xtc_probability": 0.5,
        "xtc_threshold": 0.2,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "logit_bias": {"5": -100, "6": 1.5},
        "seed": 42,
    }
    client.chat.completions.create(
        model="fake", messages=HELLO, stop=["END", "\n\n"], extra_body=fields | {"ignore_eos": True}
    )
    asked = server.model.works[-1].asked
    expected = fields | {"dry_sequence_breakers": ("\n",), "logit_bias": {5: -100.0, 6: 1.5}}
    assert set(expected) == set(Sampling.__dataclass_fields__)
    assert asked["sampling"] == Sampling(**expected)
    assert asked["stop"] == ("END", "\n\n")
    assert asked["ignore_eos"] is True


def test_what_is_not_sent_is_left_to_the_model(client: openai.OpenAI, server: Served) -> None:
    client.chat.completions.create(model="fake", messages=HELLO)
    assert server.model.works[-1].asked == {
        "sampling": Sampling(),
        "max_tokens": None,
        "stop": (),
        "logprobs": None,
        "n": 1,
        "ignore_eos": False,
    }


def test_other_spellings(server: Served) -> None:
    assert server.chat(repetition_penalty=1.2, top_k=-1, stop="END", seed=None).status == 200
    asked = server.model.works[-1].asked
    assert asked["sampling"] == Sampling(repeat_penalty=1.2, top_k=0)
    assert asked["stop"] == ("END",)


def test_messages_reach_the_template_as_text(server: Served) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "go on"},
    ]
    assert server.chat(messages=messages, chat_template_kwargs={"enable_thinking": False}).status == 200
    work = server.model.works[-1]
    assert work.prompt == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one\ntwo", "name": "Ann"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "go on"},
    ]
    assert work.asked["enable_thinking"] is False


def test_fields_that_ask_for_nothing_are_taken(server: Served) -> None:
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "audio": None,
        "service_tier": "auto",
        "parallel_tool_calls": True,
    }
    answered = server.chat(**harmless)
    assert answered.status == 200
    assert "x-ingle-ignored" not in {name.lower() for name in answered.headers}


def test_unknown_fields_are_listed(server: Served) -> None:
    messages = [{"role": "user", "content": "hi", "mood": "gay"}]
    for stream in (False, True):
        answered = server.chat(frobnicate=1, messages=messages, stream=stream)
        assert answered.status == 200
        assert answered.headers["x-ingle-ignored"] == "frobnicate, messages[0].mood"


def test_models(client: openai.OpenAI) -> None:
    models: dict[str, Any] = {model.id: model for model in client.models.list()}
    assert list(models) == ["fake", "org/other:Q8_0"]
    assert models["fake"].ingle["loaded"] is True
    assert models["fake"].ingle["context_length"] == 512
    assert models["fake"].ingle["context_reason"] == "memory"
    assert models["fake"].ingle["warnings"]
    assert models["fake"].ingle["chat"] is True and models["fake"].ingle["vision"] is False
    assert models["fake"].ingle["sampling"] == {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
    assert models["org/other:Q8_0"].ingle == {"loaded": False, "size_bytes": 10_000_000, "vision": False}
    assert client.models.retrieve("org/other:Q8_0").owned_by == "org"


def test_an_installed_model_is_loaded_by_its_first_request(server: Served) -> None:
    with server.client() as client:
        assert client.chat.completions.create(model="org/other:Q8_0", messages=HELLO).model == "org/other:Q8_0"
        models: dict[str, Any] = {model.id: model for model in client.models.list()}
    assert models["org/other:Q8_0"].ingle["loaded"] is True


def test_metrics(server: Served) -> None:
    server.chat()
    text = server.ask("GET", "/metrics").body.decode()
    assert 'ingle_http_requests_total{method="POST",route="/v1/chat/completions",status="200"}' in text
    assert 'ingle_engine_generated_tokens_total{model="fake"} 35.0' in text
    assert 'ingle_time_to_first_token_seconds_count{model="fake"}' in text
    assert 'ingle_inter_token_seconds_bucket{le="0.1",model="fake"}' in text
    assert "ingle_models_loaded" in text


def test_health(server: Served) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
