"""OpenAI's responses, driven by OpenAI's client: its accumulator must make of a stream what it gets whole."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from answers import EXAMPLES, HERMES, PARIS, tool
from fake_model import FakeCatalog, Script
from served import served

TOOLS: Any = [{"type": "function", **given["function"]} for given in (tool("get_weather"), tool("find_it"))]


def scripted(text: str, template: str = HERMES, size: int = 3) -> FakeCatalog:
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))
    return FakeCatalog("fake", script=Script(pieces, template=template))


def streamed(client: openai.OpenAI, **fields: Any) -> Any:
    with client.responses.stream(model="fake", **fields) as stream:
        numbers = [event.sequence_number for event in stream]
        assert numbers == list(range(len(numbers)))
        return stream.get_final_response()


def items(response: Any) -> list[Any]:
    """The output without what is new in each response."""
    own = {"id", "call_id", "parsed", "parsed_arguments"}
    plain = json.loads(response.model_dump_json(exclude_none=True))["output"]
    for item in plain:
        for part in [item, *item.get("content", [])]:
            for key in own:
                part.pop(key, None)
    return plain


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith(("hermes", "kimi", "never", "broken"))])
def test_a_stream_adds_up_to_the_whole_response(name: str) -> None:
    example = EXAMPLES[name]
    with served(scripted(example.text, example.template)) as server, server.client() as client:
        whole = client.responses.create(model="fake", input="hi", tools=TOOLS)
        other = streamed(client, input="hi", tools=TOOLS)
    assert items(whole) == items(other)
    assert whole.status == other.status == "completed"
    assert whole.output_text == example.content
    calls = [(item.name, item.arguments) for item in whole.output if item.type == "function_call"]
    assert calls == [(call.name, call.arguments) for call in example.calls]
    thoughts = [part.text for item in whole.output if item.type == "reasoning" for part in item.content or ()]
    assert "".join(thoughts) == example.reasoning
    assert whole.usage is not None and other.usage is not None
    assert whole.usage.output_tokens == other.usage.output_tokens > 0


@pytest.mark.parametrize("most", [None, 20])
def test_a_demanded_call_streams_in_pieces(most: int | None) -> None:
    example = EXAMPLES["hermes"]
    fields: Any = {"model": "fake", "input": "hi", "tools": TOOLS, "tool_choice": "required", "max_output_tokens": most}
    with served(scripted(example.text, example.template)) as server, server.client() as client:
        whole = client.responses.create(**fields)
        events = list(client.responses.create(stream=True, **fields))
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 2
    assert items(whole) == items(events[-1].response)
    assert whole.status == events[-1].response.status == ("incomplete" if most else "completed")
    calls = [item for item in whole.output if item.type == "function_call"]
    assert "".join(pieces) == "".join(call.arguments for call in calls)
    assert [call.status for call in calls] == (["incomplete"] if most else ["completed", "completed"])


def test_a_session_of_three_turns_and_two_tools() -> None:
    """What a coding agent does, the conversation carried by itself and then by the server."""
    example = EXAMPLES["hermes that reasons"]
    with served(scripted(example.text)) as server, server.client() as client:
        first = streamed(client, input=[{"role": "user", "content": "hi"}], tools=TOOLS, instructions="Be kind.")
        made = [item for item in first.output if item.type == "function_call"]
        results: Any = [{"type": "function_call_output", "call_id": item.call_id, "output": "42"} for item in made]
        given: Any = [
            {"role": "user", "content": "hi"},
            *json.loads(first.model_dump_json(exclude_none=True))["output"],
        ]
        for item in given:
            item.pop("parsed_arguments", None)
        client.responses.create(model="fake", input=[*given, *results], tools=TOOLS, instructions="Be kind.")
        client.responses.create(
            model="fake", input=results, previous_response_id=first.id, tools=TOOLS, instructions="Be kind."
        )
        carried, kept = (work.prompt for work in server.model.works[1:])
    assert carried == kept
    assert [message["role"] for message in kept] == ["system", "user", "assistant", "tool", "tool"]
    assert kept[2]["reasoning_content"] == example.reasoning
    assert kept[2]["tool_calls"][0]["function"] == {"name": PARIS.name, "arguments": PARIS.arguments}


@pytest.mark.parametrize("kept", [False, True], ids=["carried by the client", "kept by the server"])
def test_three_streamed_turns_through_the_client_s_accumulator(kept: bool) -> None:
    """A coding agent: each turn's stream is accumulated, its calls answered, and the next turn stands on all of it."""
    example = EXAMPLES["hermes that reasons"]
    with served(scripted(example.text)) as server, server.client() as client:
        given: list[Any] = [{"role": "user", "content": "hi"}]
        previous: dict[str, str] = {}
        for _ in range(3):
            response = streamed(client, input=given, tools=TOOLS, instructions="Be kind.", **previous)
            made = [item for item in response.output if item.type == "function_call"]
            assert [(item.name, item.arguments) for item in made] == [(c.name, c.arguments) for c in example.calls]
            output = json.loads(response.model_dump_json(exclude_none=True))["output"]
            for item in output:
                item.pop("parsed_arguments", None)
            results = [{"type": "function_call_output", "call_id": item.call_id, "output": "42"} for item in made]
            more = [*results, {"role": "user", "content": "Go on."}]
            given = more if kept else [*given, *output, *more]
            previous = {"previous_response_id": response.id} if kept else {}
        last = server.model.works[-1].prompt
    assert [message["role"] for message in last] == ["system", "user"] + ["assistant", "tool", "tool", "user"] * 2
    assert all(m["reasoning_content"] == example.reasoning for m in last if m["role"] == "assistant")


def test_responses_are_kept_found_and_deleted() -> None:
    with served(scripted("Hello.")) as server, server.client() as client:
        made = client.responses.create(model="fake", input="hi", metadata={"a": "b"})
        assert client.responses.retrieve(made.id).output_text == "Hello."
        assert client.responses.input_items.list(made.id).data[0].content == "hi"  # type: ignore[union-attr]
        client.responses.delete(made.id)
        unkept = client.responses.create(model="fake", input="hi", store=False)
        for name in (made.id, unkept.id):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(name)
        with pytest.raises(openai.NotFoundError) as caught:
            client.responses.create(model="fake", input="x", previous_response_id=made.id)
        assert caught.value.param == "previous_response_id"


def test_tokens_are_counted_and_cut_answers_say_so() -> None:
    with served(scripted("one two three")) as server, server.client() as client:
        counted = client.responses.input_tokens.count(model="fake", input="hi there").input_tokens
        cut = client.responses.create(model="fake", input="hi there", max_output_tokens=2)
        assert counted == server.model.count([{"role": "user", "content": "hi there"}])
    assert cut.status == "incomplete" and cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_text_formats_and_logprobs_reach_the_model() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    with served(scripted("{}")) as server, server.client() as client:
        form: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
        response = client.responses.create(model="fake", input="hi", text=form, top_logprobs=1)
        asked = server.model.works[0].asked
    assert asked["output"].value == schema and asked["logprobs"] == 1
    assert response.output[0].content[0].logprobs[0].token == "{}"  # type: ignore[union-attr,index]


PART = "input[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, f"{PART}.image_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]}, PART),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, PART),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "arguments": "{}"}]}, "input[0].name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "no"}}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with served(scripted("x")) as server:
        answered = server.ask("POST", "/v1/responses", {"model": "fake", "input": "hi"} | fields)
    assert (answered.status, answered.error["param"]) == (400, param), answered.body


def test_what_changes_nothing_is_reported() -> None:
    body = {
        "model": "fake",
        "input": "hi",
        "odd": 1,
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low"},
    }
    with served(scripted("x")) as server:
        answered = server.ask("POST", "/v1/responses", body)
        spaces = server.ask("POST", "/v1/responses", {"model": "fake", "input": "hi", " ": 1, "include": [""]})
    assert spaces.headers["x-ingle-ignored"] == r"\x20,\x20include:\x20"  # no header ends in a space
    assert answered.headers["x-ingle-ignored"] == "odd, include: reasoning.encrypted_content, text.verbosity"


def test_nothing_runs_in_the_background() -> None:
    with served(scripted("x")) as server, server.client() as client:
        made = client.responses.create(model="fake", input="hi")
        with pytest.raises(openai.BadRequestError, match="in the background"):
            client.responses.cancel(made.id)
