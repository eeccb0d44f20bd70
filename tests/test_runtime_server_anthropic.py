"""Anthropic's dialect, driven by Anthropic's own client: its accumulator must make of a stream what it gets whole."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from answers import EXAMPLES, HERMES, PARIS, ROME, THINKING, tool
from fake_model import FakeCatalog, Script
from served import Served, served

ASK: Any = [{"role": "user", "content": "How is the weather?"}]
TOOLS: Any = [
    {"name": given["function"]["name"], "description": "x", "input_schema": given["function"]["parameters"]}
    for given in (tool("get_weather"), tool("find_it"))
]


USED = {"type": "tool_use", "id": "a", "name": "get_weather", "input": {}}


def scripted(text: str, template: str, size: int = 3) -> FakeCatalog:
    return FakeCatalog(
        "fake", script=Script(tuple(text[a : a + size] for a in range(0, len(text), size)), template=template)
    )


def client(server: Served) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0, timeout=20)


def whole(server: Served, **fields: Any) -> Any:
    with client(server) as speaker:
        return speaker.messages.create(model="fake", messages=ASK, max_tokens=400, **fields)


def streamed(server: Served, **fields: Any) -> Any:
    with (
        client(server) as speaker,
        speaker.messages.stream(model="fake", messages=ASK, max_tokens=400, **fields) as stream,
    ):
        return stream.get_final_message()


def blocks(message: Any) -> list[Any]:
    return [
        {k: v for k, v in block.model_dump(exclude_none=True).items() if k not in ("id", "caller")}
        for block in message.content
    ]


@pytest.mark.parametrize(
    "name", [name for name in EXAMPLES if name.startswith(("hermes", "already", "coder", "broken"))]
)
def test_a_stream_adds_up_to_the_whole_message(name: str) -> None:
    example = EXAMPLES[name]
    with served(scripted(example.text, example.template)) as server:
        one, other = whole(server, tools=TOOLS), streamed(server, tools=TOOLS)
    assert blocks(one) == blocks(other)
    assert one.stop_reason == other.stop_reason == ("tool_use" if example.calls else "end_turn")
    assert one.usage.output_tokens == other.usage.output_tokens > 0
    assert one.usage.input_tokens == other.usage.input_tokens
    texts = {"thinking": example.reasoning, "text": example.content}
    expected = [{"type": kind, kind: text} for kind, text in texts.items() if text]
    found = [{key: block[key] for key in ("type", block["type"])} for block in blocks(one) if block["type"] in texts]
    assert sorted(found, key=str) == sorted(expected, key=str)
    calls = [(block.name, block.input) for block in one.content if block.type == "tool_use"]
    assert calls == [(call.name, json.loads(call.arguments)) for call in example.calls]


@pytest.mark.parametrize("most", [400, 20])
def test_a_demanded_call_streams_in_pieces(most: int) -> None:
    example = EXAMPLES["hermes"]
    fields: Any = {"model": "fake", "messages": ASK, "tools": TOOLS, "tool_choice": {"type": "any"}, "max_tokens": most}
    with served(scripted(example.text, example.template)) as server, client(server) as speaker:
        one = speaker.messages.create(**fields)
        with speaker.messages.stream(**fields) as stream:
            pieces = [event.partial_json for event in stream if event.type == "input_json"]
            other = stream.get_final_message()
    assert len(pieces) > 2
    assert blocks(one) == blocks(other)
    assert one.stop_reason == other.stop_reason == ("tool_use" if most == 400 else "max_tokens")
    inputs = [block.input for block in one.content if block.type == "tool_use"]
    assert inputs[1:] == ([json.loads(ROME.arguments)] if most == 400 else [])


def test_a_session_of_three_turns_and_two_tools() -> None:
    """What a coding agent does: calls, results, more calls, an answer."""
    example = EXAMPLES["hermes that reasons"]
    with (
        served(scripted(example.text, THINKING.replace("<think>\n{% endif %}", "{% endif %}"))) as server,
        client(server) as speaker,
    ):
        messages = list(ASK)
        for _ in range(3):
            with speaker.messages.stream(
                model="fake",
                messages=messages,
                max_tokens=400,
                tools=TOOLS,
                system=[{"type": "text", "text": "Be kind."}],
            ) as stream:
                answer = stream.get_final_message()
            messages.append({"role": "assistant", "content": answer.content})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "42"}]}
                for block in answer.content
                if block.type == "tool_use"
            ]
            messages.append({"role": "user", "content": [*results, {"type": "text", "text": "Go on."}]})
        given = server.model.works[-1].prompt
    assert [message["role"] for message in given][:6] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert given[2]["reasoning_content"] == example.reasoning
    assert given[2]["tool_calls"][1]["function"]["arguments"] == json.loads(ROME.arguments)
    assert given[3]["tool_call_id"] == given[2]["tool_calls"][0]["id"]
    assert len(given) == 1 + 1 + 2 * 4


@pytest.mark.parametrize(
    ("choice", "passed"),
    [
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": PARIS.name}, f"={PARIS.name}"),
        ({"type": "none"}, "none"),
    ],
)
def test_the_choice_of_tools_is_passed_on(choice: Any, passed: str) -> None:
    with served(scripted(EXAMPLES["hermes"].text, HERMES)) as server:
        whole(
            server,
            tools=TOOLS,
            tool_choice={**choice, "disable_parallel_tool_use": True} if passed != "none" else choice,
        )
        asked = server.model.works[0].asked
    assert asked["tool_choice"] == passed
    assert asked["parallel_tool_calls"] is (passed == "none")


def test_the_fields_reach_the_model() -> None:
    with served(scripted("x", HERMES)) as server:
        message = whole(
            server,
            extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 7},
            stop_sequences=["END"],
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
        asked = server.model.works[0].asked
    assert (asked["sampling"].temperature, asked["sampling"].top_p, asked["sampling"].top_k) == (0.5, 0.9, 7)
    assert (asked["stop"], asked["max_tokens"]) == (("END",), 400)
    assert message.stop_reason == "end_turn" and message.stop_sequence is None


def test_tokens_are_counted() -> None:
    with served(scripted("x", HERMES)) as server, client(server) as speaker:
        counted = speaker.messages.count_tokens(model="fake", messages=ASK, tools=TOOLS).input_tokens
        assert counted == server.model.count([{"role": "user", "content": ASK[0]["content"]}], tools=server_tools())
        assert not server.model.works


def server_tools() -> list[Any]:
    return [
        {"type": "function", "function": {"name": t["name"], "description": "x", "parameters": t["input_schema"]}}
        for t in TOOLS
    ]


def picture(**source: Any) -> Any:
    return {"type": "image", "source": source}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 9999}, "9999 tokens"),
        ({"temperature": 2}, "temperature"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].function.name"),
        ({"tools": [{"name": "bash", "type": "bash_20250124", "input_schema": {}}]}, "bash_20250124"),
        ({"tool_choice": {"type": "tool", "name": "no"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "'document'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "sources of type None"),
        ({"messages": [{"role": "user", "content": [picture(type="url", url="https://a")]}]}, "are not fetched"),
        (
            {"messages": [{"role": "user", "content": [picture(type="base64", data=5, media_type="image/png")]}]},
            "base64",
        ),
        ({"messages": [{"role": "user", "content": [picture(type="base64", data="", media_type="x")]}]}, "type 'x'"),
        ({"messages": [*ASK, {"role": "assistant", "content": [USED]}]}, "the last message has tool calls"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
    ],
)
def test_what_makes_no_sense_is_refused_in_its_shape(fields: dict[str, Any], complaint: str) -> None:
    body = {"model": "fake", "messages": ASK, "max_tokens": 9} | fields
    with served(scripted("x", HERMES)) as server:
        answered = server.ask("POST", "/v1/messages", body)
    assert answered.status == 400
    assert answered.json["type"] == "error" and answered.error["type"] == "invalid_request_error"
    assert complaint in answered.error["message"]


def test_errors_keep_the_shape_on_every_road() -> None:
    with served(scripted("x", HERMES)) as server:
        missing = server.ask("POST", "/v1/messages", {"model": "no", "messages": ASK, "max_tokens": 9})
        foreign = server.ask("POST", "/v1/messages", {}, {"Host": "evil.example"})
        ignored = server.ask("POST", "/v1/messages", {"model": "fake", "messages": ASK, "max_tokens": 9, "odd": 1})
    assert (missing.status, missing.error["type"]) == (404, "not_found_error")
    assert (foreign.status, foreign.error["type"]) == (403, "permission_error")
    assert ignored.status == 200 and ignored.headers["x-ingle-ignored"] == "odd"


def test_output_config_is_heard() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    body = {"model": "fake", "messages": ASK, "max_tokens": 9}
    with served(scripted("{}", HERMES + "{# enable_thinking #}")) as server:
        config: Any = {"effort": "none", "format": {"type": "json_schema", "schema": schema}}
        answered = server.ask("POST", "/v1/messages", body | {"output_config": config})
        asked = server.model.works[0].asked
        wrong = server.ask("POST", "/v1/messages", body | {"output_config": {"format": {"type": "yaml"}}})
    assert answered.status == 200 and asked["output"].value == schema
    assert asked["enable_thinking"] is False
    assert wrong.status == 400 and "output_config.format" in wrong.error["message"]


def test_labels_are_taken_and_the_rest_reported() -> None:
    labels = {"metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}}
    body = {"model": "fake", "messages": ASK, "max_tokens": 9, "speed": "fast", "inference_geo": "eu", **labels}
    with served(scripted("x", HERMES)) as server:
        answered = server.ask("POST", "/v1/messages", body | {"diagnostics": {}})
    assert answered.headers["x-ingle-ignored"] == "inference_geo, speed, diagnostics"


def test_an_answer_that_was_begun_goes_on() -> None:
    begun = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    with served(scripted(" fair.", HERMES)) as server, client(server) as speaker:
        answer = speaker.messages.create(model="fake", messages=begun, max_tokens=400)
        assert server.model.works[-1].prompt[-1] == {"role": "assistant", "content": "It is"}
        counted = speaker.messages.count_tokens(model="fake", messages=begun).input_tokens
        assert server.model.works[-1].asked["continue_final_message"] is True
        assert blocks(answer) == [{"type": "text", "text": " fair."}]
        assert counted == len(server.model.render(begun_plain(), continue_final_message=True).split())


def begun_plain() -> list[dict[str, Any]]:
    return [*ASK, {"role": "assistant", "content": "It is"}]
