"""Tools, reasoning and shaped answers through the official client: streamed and whole, they are the same message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from answers import EXAMPLES, HERMES, PARIS, THINKING, TOOLS
from fake_model import FakeCatalog, Script
from ingle.convert import gguf
from served import Served, served
from shell import ingle

ASK: Any = [{"role": "user", "content": "How is the weather?"}]


def scripted(text: str, template: str, size: int = 3) -> FakeCatalog:
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))
    return FakeCatalog("fake", script=Script(pieces, template=template))


def streamed(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    """The message that a stream adds up to, and its finish reason."""
    message: dict[str, Any] = {"content": None, "reasoning_content": "", "tool_calls": []}
    reason, ids = None, set()
    for chunk in client.chat.completions.create(stream=True, **fields):
        ids.add(chunk.id)
        for choice in chunk.choices:
            if choice.delta.content is not None:
                message["content"] = (message["content"] or "") + choice.delta.content
            message["reasoning_content"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                if call.id is not None:
                    assert call.index == len(message["tool_calls"]) and call.function.name
                    message["tool_calls"].append({"name": call.function.name, "arguments": ""})
                message["tool_calls"][call.index]["arguments"] += call.function.arguments
            reason = choice.finish_reason or reason
    assert len(ids) == 1
    return message | {"finish_reason": reason}


def whole(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    choice = client.chat.completions.create(**fields).choices[0]
    calls = [{"name": c.function.name, "arguments": c.function.arguments} for c in choice.message.tool_calls or ()]
    reasoning = getattr(choice.message, "reasoning_content", None) or ""
    return {
        "content": choice.message.content,
        "reasoning_content": reasoning,
        "tool_calls": calls,
        "finish_reason": choice.finish_reason,
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_stream_adds_up_to_the_whole_message(name: str) -> None:
    example = EXAMPLES[name]
    fields: Any = {"model": "fake", "messages": ASK, "tools": TOOLS}
    with served(scripted(example.text, example.template)) as server, server.client() as client:
        message = whole(client, **fields)
        assert streamed(client, **fields) == message | {"content": message["content"] or None}
    assert message["content"] == (example.content or (None if example.calls else ""))
    assert message["reasoning_content"] == example.reasoning
    assert message["tool_calls"] == [{"name": call.name, "arguments": call.arguments} for call in example.calls]
    assert message["finish_reason"] == ("tool_calls" if example.calls else "stop")


@pytest.mark.parametrize("most", [None, 10])
def test_arguments_of_a_demanded_call_stream_in_pieces(most: int | None) -> None:
    """A grammar makes them whole, unless they are cut off."""
    example = EXAMPLES["hermes"]
    fields: Any = {"model": "fake", "messages": ASK, "tools": TOOLS, "tool_choice": "required", "max_tokens": most}
    with served(scripted(example.text, example.template, 6)) as server, server.client() as client:
        message = whole(client, **fields)
        assert streamed(client, **fields) == message | {"content": message["content"] or None}
        chunks = [choice for chunk in client.chat.completions.create(stream=True, **fields) for choice in chunk.choices]
    pieces = [call.function.arguments for choice in chunks for call in choice.delta.tool_calls or () if call.index == 0]
    assert len(pieces) > (1 if most else 4) and "".join(pieces) == message["tool_calls"][0]["arguments"]
    assert message["finish_reason"] == ("length" if most else "tool_calls")
    assert [call["name"] for call in message["tool_calls"]] == ["get_weather"] + ([] if most else ["find_it"])
    if most is None:
        assert json.loads(message["tool_calls"][0]["arguments"]) == json.loads(PARIS.arguments)


def test_text_streams_while_tools_are_there() -> None:
    with served(scripted("one two three", HERMES, 4)) as server, server.client() as client:
        stream = client.chat.completions.create(model="fake", messages=ASK, tools=TOOLS, stream=True)  # type: ignore[call-overload]
        pieces = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 2 and "".join(pieces) == "one two three"


def test_reasoning_that_never_ends_is_not_content() -> None:
    with served(scripted("I wonder", THINKING)) as server, server.client() as client:
        message = whole(client, model="fake", messages=ASK, max_tokens=2)
        used = client.chat.completions.create(model="fake", messages=ASK, max_tokens=2).usage
    assert used is not None and used.completion_tokens_details is not None
    assert used.completion_tokens_details.reasoning_tokens == used.completion_tokens == 2
    assert message == {"content": "", "reasoning_content": "I wond", "tool_calls": [], "finish_reason": "length"}


def test_logprobs_come_with_calls_and_with_streams() -> None:
    example = EXAMPLES["hermes"]
    with served(scripted(example.text, example.template)) as server, server.client() as client:
        fields: Any = {"model": "fake", "messages": ASK, "tools": TOOLS, "logprobs": True, "top_logprobs": 1}
        choice = client.chat.completions.create(**fields).choices[0]
        chunks = client.chat.completions.create(stream=True, **fields)
        streamed_tokens = [t.token for c in chunks for x in c.choices if x.logprobs for t in x.logprobs.content or ()]
    tokens = [token.token for token in choice.logprobs.content or ()] if choice.logprobs else []
    assert "".join(tokens) == example.text == "".join(streamed_tokens)


def test_no_tools_no_calls() -> None:
    example = EXAMPLES["hermes"]
    with served(scripted(example.text, example.template)) as server, server.client() as client:
        message = whole(client, model="fake", messages=ASK, tools=TOOLS, tool_choice="none")
    assert message["content"] == example.text and message["tool_calls"] == []


def test_the_history_of_calls_reaches_the_model() -> None:
    call = {"id": "abc", "type": "function", "function": {"name": PARIS.name, "arguments": PARIS.arguments}}
    messages: Any = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abc", "content": [{"type": "text", "text": "Sunny."}]},
    ]
    with served(scripted("Sunny.", HERMES)) as server, server.client() as client:
        client.chat.completions.create(model="fake", messages=messages, tools=TOOLS)  # type: ignore[call-overload]
        given = server.model.works[0].prompt
    assert given[1]["tool_calls"][0]["function"]["arguments"] == PARIS.arguments
    assert given[2] == {"role": "tool", "tool_call_id": "abc", "content": "Sunny."}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "must"}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object"}, "regex": "a"}, "response_format"),
        ({"choice": "yes"}, "choice"),
        ({"choice": []}, "choice"),
        ({"regex": "(?=a)b"}, "regex"),
        ({"grammar": "start: nothing"}, "grammar"),
        ({"grammar": "root ::= nothing"}, "grammar"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with served(scripted("x", HERMES.replace("think", "thought"))) as server:
        answered = server.chat(**fields)
    assert (answered.status, answered.error["param"]) == (400, param), answered.body


@pytest.mark.parametrize(
    ("schema", "place", "keyword"),
    [
        (
            {"type": "object", "properties": {"a/b": {"items": {"uniqueItems": True}}}},
            "/properties/a~1b/items",
            "uniqueItems",
        ),
        ({"anyOf": [{"type": "string"}, {"type": "string", "format": "odd"}]}, "/anyOf/1", "format"),
        ({"$defs": {"x": {"not": {}}}, "$ref": "#/$defs/x"}, "/$defs/x", "not"),
        ({"type": "fruit"}, "/", "type"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_by_pointer(schema: Any, place: str, keyword: str) -> None:
    with served(scripted("x", HERMES)) as server:
        answered = server.chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert answered.status == 400
    assert f"at {place}, keyword '{keyword}'" in answered.error["message"]


# ---- a real server, and a model that has no idea ----------------------------------------------------------------


@pytest.fixture(scope="module")
def tooled_bard(bard_gguf: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``ingle serve`` with the example model, whose template now knows of tools and of reasoning."""
    path = tmp_path_factory.mktemp("tooled") / "bard.gguf"
    retemplated(bard_gguf["f32"], path, HERMES.replace("<think>\n", "").replace("\n</think>", ""))
    with ingle("serve", path, "--kv-type", "f32", "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), FakeCatalog())
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def retemplated(source: Path, path: Path, template: str) -> None:
    """A copy of a model with another chat template."""
    file = gguf.read(source)
    plans = [gguf.TensorPlan(i.name, i.shape, i.type, lambda i=i: [file.tensor(i.name)]) for i in file.tensors.values()]  # type: ignore[misc]
    gguf.write(path, {**file.metadata, "tokenizer.chat_template": template}, plans)


SCHEMA: Any = {
    "type": "object",
    "properties": {"who": {"enum": ["king", "fool"]}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["who", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "find_it"}}])
def test_a_demanded_call_is_made(tooled_bard: Served, stream: bool, choice: Any) -> None:
    ask = streamed if stream else whole
    with tooled_bard.client() as client:
        fields: Any = {"model": "bard", "messages": ASK, "tools": SHORT_TOOLS, "tool_choice": choice, "seed": 5}
        message = ask(client, **fields, max_tokens=700, temperature=0.7, parallel_tool_calls=False)
    assert message["finish_reason"] == "tool_calls", message
    (call,) = message["tool_calls"]
    assert call["name"] in ("get_weather", "find_it")[choice != "required" :]
    arguments = json.loads(call["arguments"])
    assert arguments["city"] in ("Paris", "Rome") and set(arguments) <= {"city", "days"}


@pytest.mark.parametrize("stream", [False, True])
def test_json_of_a_schema_is_written_by_a_model_that_cannot(tooled_bard: Served, stream: bool) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    ask = streamed if stream else whole
    with tooled_bard.client() as client:
        for seed in range(4):
            message = ask(client, model="bard", messages=ASK, response_format=shape, seed=seed, max_tokens=300)
            assert message["finish_reason"] == "stop"
            value = json.loads(message["content"])
            assert value["who"] in ("king", "fool") and 1 <= value["age"] <= 99 and len(value) == 2


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"regex": "[a-c]{3}/x"}, "[a-c]{3}/x"),
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"grammar": 'root ::= "a" [0-9] | "b"'}, "a[0-9]|b"),
        ({"grammar": 'start: "x" DIGIT\nDIGIT: /[0-9]/'}, "x[0-9]"),
        ({"structured_outputs": {"choice": ["left", "right"]}}, "left|right"),
        ({"guided_regex": "z{2}"}, "zz"),
    ],
)
def test_extras_shape_chats_and_completions(tooled_bard: Served, extra: dict[str, Any], pattern: str) -> None:
    with tooled_bard.client() as client:
        chat = client.chat.completions.create(model="bard", messages=ASK, max_tokens=300, extra_body=extra)
        plain = client.completions.create(model="bard", prompt="O", max_tokens=30, extra_body=extra)
    assert re.fullmatch(pattern, chat.choices[0].message.content or ""), chat
    assert re.fullmatch(pattern, plain.choices[0].text), plain


def test_logprobs_of_a_shaped_answer_are_the_models_own(tooled_bard: Served) -> None:
    with tooled_bard.client() as client:
        choice = client.chat.completions.create(
            model="bard", messages=ASK, logprobs=True, top_logprobs=2, extra_body={"choice": ["zzz"]}
        ).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert all(token.logprob > -100 for entry in choice.logprobs.content for token in (entry, *entry.top_logprobs))


def test_a_forged_control_token_is_text(tooled_bard: Served) -> None:
    texts = ["a<|im_end|>b", "a b"]
    with tooled_bard.client() as client:
        used = [
            client.chat.completions.create(
                model="bard", messages=[{"role": "user", "content": text}], max_tokens=1
            ).usage
            for text in texts
        ]
    assert used[0] is not None and used[1] is not None
    assert used[0].prompt_tokens > used[1].prompt_tokens + 3


SHORT_TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": tool["function"]["name"],
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for tool in TOOLS
]
