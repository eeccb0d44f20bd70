"""Requests that are wrong, hostile or not served: refused before work, by the name of the field, in one shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fake_model import FakeCatalog, Script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingle.convert.errors import (
    BadRequest,
    EngineCrashed,
    HubError,
    IngleError,
    LoadFailed,
    QueueFull,
    TemplateError,
)
from ingle.runtime.server import body
from ingle.runtime.server.listening import ServeOptions
from served import Answered, Served, served

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", "org/other:Q8_0")) as running:
        yield running


@pytest.fixture(scope="module")
def strict_server() -> Iterator[Served]:
    with served(FakeCatalog("fake"), ServeOptions(port=0, strict=True)) as running:
        yield running


def refused(answered: Answered, status: int, param: str | None, code: str) -> None:
    """OpenAI's error shape, and nothing of our insides."""
    error = answered.error
    assert set(answered.json) == {"error"}
    assert {"message", "type", "param", "code"} <= set(error)
    assert (answered.status, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == {401: "authentication_error", 403: "permission_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    assert error["message"]
    assert "Traceback" not in error["message"]
    assert ".py" not in error["message"]


WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("max_tokens", "lots", "max_tokens"),
    ("max_tokens", 0, "max_tokens"),
    ("max_tokens", 513, "max_tokens"),
    ("max_tokens", 1.5, "max_tokens"),
    ("max_tokens", True, "max_tokens"),
    ("temperature", -0.1, "temperature"),
    ("temperature", 2.1, "temperature"),
    ("temperature", "0.5", "temperature"),
    ("temperature", True, "temperature"),
    ("top_p", 0, "top_p"),
    ("top_p", 1.1, "top_p"),
    ("top_k", -2, "top_k"),
    ("top_k", 1001, "top_k"),
    ("min_p", 2, "min_p"),
    ("typical_p", 0, "typical_p"),
    ("repeat_penalty", 0, "repeat_penalty"),
    ("repetition_penalty", 2.5, "repetition_penalty"),
    ("presence_penalty", 2.5, "presence_penalty"),
    ("frequency_penalty", -2.5, "frequency_penalty"),
    ("repeat_last_n", -2, "repeat_last_n"),
    ("repeat_last_n", 513, "repeat_last_n"),
    ("dry_penalty_last_n", 2**31 - 1, "dry_penalty_last_n"),
    ("dry_base", 0.5, "dry_base"),
    ("dry_allowed_length", 0, "dry_allowed_length"),
    ("mirostat_tau", 0, "mirostat_tau"),
    ("dry_multiplier", -1, "dry_multiplier"),
    ("dry_sequence_breakers", [""], "dry_sequence_breakers"),
    ("xtc_probability", 1.5, "xtc_probability"),
    ("mirostat", 3, "mirostat"),
    ("mirostat", True, "mirostat"),
    ("n", 0, "n"),
    ("n", 17, "n"),
    ("seed", 2**63, "seed"),
    ("seed", 1.5, "seed"),
    ("stop", [""], "stop"),
    ("stop", ["x" * 257], "stop"),
    ("stop", ["x"] * 17, "stop"),
    ("stop", 5, "stop"),
    ("stop", ["x", 5], "stop[1]"),
    ("logit_bias", {"x": 1}, "logit_bias"),
    ("logit_bias", {"-1": 1}, "logit_bias"),
    ("logit_bias", {"1000": 1}, "logit_bias"),
    ("logit_bias", {"5": 101}, "logit_bias.5"),
    ("logit_bias", {str(key): 0 for key in range(1025)}, "logit_bias"),
    ("stream", "yes", "stream"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage"),
    ("model", 5, "model"),
    ("model", "", "model"),
    ("metadata", [], "metadata"),
]


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("field", "value", "param"), WRONG_FIELDS)
def test_a_wrong_value_is_refused_by_name(server: Served, route: str, field: str, value: Any, param: str) -> None:
    prompt = {"messages": [{"role": "user", "content": "hi"}]} if route == CHAT else {"prompt": "hi"}
    answered = server.ask("POST", route, {"model": "fake", **prompt, field: value})
    refused(answered, 400, param, "invalid_request")


EDGES: list[tuple[str, Any]] = [
    ("max_tokens", 1),
    ("max_tokens", 512),
    ("temperature", 0),
    ("temperature", 2),
    ("top_p", 1),
    ("top_p", 1e-9),
    ("top_k", 0),
    ("top_k", 1000),
    ("min_p", 1),
    ("repeat_penalty", 2),
    ("presence_penalty", -2),
    ("n", 16),
    ("seed", -(2**63)),
    ("seed", 2**63 - 1),
    ("stop", []),
    ("stop", ["é" * 128]),
    ("logit_bias", {"999": -100}),
]


@pytest.mark.parametrize(("field", "value"), EDGES)
def test_the_edges_are_inside(server: Served, field: str, value: Any) -> None:
    assert server.chat(**{field: value}).status == 200


WRONG_MESSAGES: list[tuple[Any, str, str]] = [
    ([], "messages", "invalid_request"),
    ("hi", "messages", "invalid_request"),
    (None, "messages", "invalid_request"),
    ([5], "messages[0]", "invalid_request"),
    ([{"role": "user"}], "messages[0].content", "invalid_request"),
    ([{"role": "user", "content": None}], "messages[0].content", "invalid_request"),
    ([{"role": "king", "content": "hi"}], "messages[0].role", "invalid_request"),
    ([{"role": "function", "content": "hi"}], "messages[0].role", "invalid_request"),
    ([{"role": "tool"}], "messages[0].content", "invalid_request"),
    ([{"content": "hi"}], "messages[0].role", "invalid_request"),
    ([{"role": "user", "content": "hi"}, {"role": "user", "content": 5}], "messages[1].content", "invalid_request"),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/cat.png"}}]}],
        "messages[0].content[0].image_url.url",
        "invalid_request",
    ),
    (
        [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
        "messages[0].content[0]",
        "invalid_request",
    ),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]", "invalid_request"),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]", "invalid_request"),
    (
        [{"role": "assistant", "content": "", "tool_calls": [{}]}],
        "messages[0].tool_calls[0].function",
        "invalid_request",
    ),
    ([{"role": "user", "content": "hi"}] * 2049, "messages", "invalid_request"),
]


@pytest.mark.parametrize(("messages", "param", "code"), WRONG_MESSAGES)
def test_a_wrong_message_is_refused_by_its_place(server: Served, messages: Any, param: str, code: str) -> None:
    refused(server.chat(messages=messages), 400, param, code)


def test_missing_fields_are_named(server: Served) -> None:
    refused(server.ask("POST", CHAT, {"model": "fake"}), 400, "messages", "invalid_request")
    refused(server.ask("POST", CHAT, {"messages": []}), 400, "messages", "invalid_request")
    refused(server.ask("POST", COMPLETIONS, {"model": "fake"}), 400, "prompt", "invalid_request")


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (5, "prompt"),
        ([], "prompt"),
        ({}, "prompt"),
        ([1, "a"], "prompt[1]"),
        (["a", 1], "prompt[1]"),
        ([[]], "prompt[0]"),
        ([[1, -1]], "prompt[0][1]"),
        ([True], "prompt[0]"),
        ([1000], "prompt"),
        (["a"] * 129, "prompt"),
    ],
)
def test_a_wrong_prompt_is_refused_by_its_place(server: Served, prompt: Any, param: str) -> None:
    refused(server.complete(prompt=prompt), 400, param, "invalid_request")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("store", True),
        ("min_tokens", 5),
        ("chat_template", "{{ 1 }}"),
    ],
)
def test_what_is_known_but_not_served_is_refused(server: Served, field: str, value: Any) -> None:
    refused(server.chat(**{field: value}), 400, field, "unsupported_parameter")


@pytest.mark.parametrize(("field", "value"), [("suffix", "x"), ("tools", [{}]), ("reasoning_effort", "low")])
def test_completions_refuse_what_they_cannot(server: Served, field: str, value: Any) -> None:
    refused(server.complete(**{field: value}), 400, field, "unsupported_parameter")


@pytest.mark.parametrize("extra", [{"prompt": [1, 2]}, {"logprobs": 1}])
def test_an_echo_is_of_text_alone(server: Served, extra: dict[str, Any]) -> None:
    refused(server.complete(echo=True, **extra), 400, "echo", "invalid_request")


def test_an_echo_comes_before_each_choice(server: Served) -> None:
    with server.client() as client:
        fields: Any = {"model": "fake", "prompt": ["One. ", "Two. "], "n": 2, "echo": True, "max_tokens": 1}
        whole = client.completions.create(**fields)
        chunks = client.completions.create(stream=True, **fields)
        texts = ["", "", "", ""]
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert [choice.text for choice in whole.choices] == texts == ["One. Once", "One. Once", "Two. Once", "Two. Once"]


def test_best_of_is_n_or_nothing(server: Served) -> None:
    assert server.complete(n=2, best_of=2).status == 200
    refused(server.complete(n=2, best_of=3), 400, "best_of", "invalid_request")


@pytest.mark.parametrize("name", ["tools", "messages", "sampling", "self", "_private", "not a name", "tokenize"])
def test_a_template_gets_free_names_only(server: Served, name: str) -> None:
    refused(server.chat(chat_template_kwargs={name: 1}), 400, "chat_template_kwargs", "invalid_request")


def test_fields_that_contradict_each_other(server: Served) -> None:
    refused(server.chat(repeat_penalty=1.1, repetition_penalty=1.2), 400, "repetition_penalty", "invalid_request")
    refused(server.chat(max_tokens=5, max_completion_tokens=6), 400, "max_completion_tokens", "invalid_request")
    refused(server.chat(top_logprobs=2), 400, "top_logprobs", "invalid_request")


def test_strict_refuses_what_is_unknown(strict_server: Served) -> None:
    refused(strict_server.chat(frobnicate=1), 400, "frobnicate", "unknown_parameter")
    messages = [{"role": "user", "content": "hi", "mood": 1}]
    refused(strict_server.chat(messages=messages), 400, "messages[0].mood", "unknown_parameter")
    assert strict_server.chat(user="u").status == 200


def test_an_unknown_model_is_not_another_one(server: Served) -> None:
    loads = len(server.catalog.loads)
    for name in ("gpt-4o", "/etc/passwd", "../fake", "FAKE", "fake.gguf"):
        answered = server.chat(model=name)
        refused(answered, 404, "model", "model_not_found")
        assert "org/other:Q8_0" in answered.error["message"]
    refused(server.ask("GET", "/v1/models/gpt-4o"), 404, "model", "model_not_found")
    assert len(server.catalog.loads) == loads


def test_unknown_routes_and_methods(server: Served) -> None:
    refused(server.ask("POST", "/v1/moderations", {}), 404, None, "unknown_url")
    refused(server.ask("GET", "/absent"), 404, None, "unknown_url")
    refused(server.ask("GET", "/v1/models/"), 404, "model", "model_not_found")
    refused(server.ask("GET", CHAT), 405, None, "method_not_supported")
    refused(server.ask("DELETE", "/v1/models/fake"), 405, None, "method_not_supported")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long(server: Served, stream: bool) -> None:
    prompt = "word " * 512
    messages = [{"role": "user", "content": prompt.strip()}]
    answers = [server.chat(messages=messages, stream=stream), server.complete(prompt=prompt, stream=stream)]
    for answered, field in zip(answers, ("messages", "prompt"), strict=True):
        refused(answered, 400, field, "context_length_exceeded")
        assert answered.error["ingle"] == {"prompt_tokens": 512, "context_window": 512}
        assert "512 tokens" in answered.error["message"]
    assert server.complete(prompt="word " * 511, max_tokens=1, stream=stream).status == 200


def test_the_official_client_raises_its_own_errors(server: Served) -> None:
    with server.client() as client:
        with pytest.raises(openai.BadRequestError) as bad:
            client.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "w " * 600}], stream=True
            )
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("absent")
    assert bad.value.code == "context_length_exceeded"
    assert bad.value.param == "messages"


ENGINE_ERRORS = [
    (QueueFull("64 requests wait", hint="try again"), 503, "queue_full"),
    (EngineCrashed("the engine process died"), 503, "engine_crashed"),
    (LoadFailed("not enough memory"), 500, "load_failed"),
    (TemplateError("the chat template refused the messages", param="messages"), 400, "template_failed"),
    (BadRequest("no", param="stop"), 400, "invalid_request"),
    (HubError("the hub is away"), 502, "hub_error"),
    (ValueError("a secret in /home/someone/x.py"), 500, "internal_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "status", "code"), ENGINE_ERRORS)
def test_failures_before_the_first_byte_have_their_status(
    error: Exception, status: int, code: str, stream: bool
) -> None:
    with served(FakeCatalog("fake", script=Script(fails=error))) as server:
        answered = server.chat(stream=stream)
    refused(answered, status, getattr(error, "param", None), code)
    assert ("retry-after" in {name.lower() for name in answered.headers}) == (status == 503)
    assert "secret" not in answered.error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_by_the_engine_has_its_status(stream: bool) -> None:
    with served(FakeCatalog("fake", script=Script(refuses=QueueFull("64 requests wait")))) as server:
        answered = server.chat(stream=stream)
    refused(answered, 503, None, "queue_full")
    assert answered.headers["retry-after"] == "2"


def test_an_engine_that_dies_before_the_first_piece_of_a_stream_is_a_503() -> None:
    with served(FakeCatalog("fake", script=Script(breaks=EngineCrashed("the engine process died")))) as server:
        refused(server.chat(stream=True), 503, None, "engine_crashed")


def test_an_engine_that_dies_in_a_stream_is_told_in_the_stream() -> None:
    script = Script(breaks=EngineCrashed("the engine process died"), breaks_after=2)
    with served(FakeCatalog("fake", script=script)) as server:
        answered = server.chat(stream=True)
        events = [line.removeprefix("data: ") for line in answered.body.decode().split("\n\n") if line]
        with server.client() as client, pytest.raises(openai.APIError, match="engine process died"):
            list(
                client.chat.completions.create(model="fake", messages=[{"role": "user", "content": "hi"}], stream=True)
            )
    assert answered.status == 200
    assert json.loads(events[-1])["error"]["code"] == "engine_crashed"
    assert "[DONE]" not in events
    assert not any(json.loads(event).get("choices", [{}])[0].get("finish_reason") for event in events[:-1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [field for field, _, _ in WRONG_FIELDS] + ["messages", "chat_template_kwargs", "top_logprobs", "logprobs"]


@given(field=st.sampled_from(sorted(set(FIELDS))), value=JSON)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_of_any_field_is_taken_or_refused_by_name(field: str, value: Any) -> None:
    from ingle.runtime.server.openai_chat import ChatRequest

    sent = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], field: value}
    try:
        data = body.parse(json.dumps(sent).encode("utf-8", "surrogatepass"))
    except IngleError as error:
        assert error.status == 400
        return
    try:
        asked = ChatRequest.parse(data)
        asked.sampling()
    except IngleError as error:
        assert error.status == 400
        assert (error.param or "").startswith(field) or error.param == "repetition_penalty"
