"""A model's own tokens and prompts over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from answers import HERMES, TOOLS
from fake_model import FakeCatalog, Script
from served import Served, served

ASK: Any = [{"role": "user", "content": "How is the weather?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", script=Script(template=HERMES))) as running:
        yield running


def test_tokens_there_and_back(server: Served) -> None:
    there = server.ask("POST", "/tokenize", {"model": "fake", "content": "a bb ccc"}).json
    assert there == {"tokens": [1, 2, 3], "count": 3, "max_model_len": 512}
    assert server.ask("POST", "/tokenize", {"model": "fake", "prompt": "a bb"}).json["count"] == 2
    pieces = server.ask("POST", "/tokenize", {"model": "fake", "content": "a bb", "with_pieces": True}).json["tokens"]
    assert pieces == [{"id": 1, "piece": "x"}, {"id": 2, "piece": "xx"}]
    back = server.ask("POST", "/detokenize", {"model": "fake", "tokens": [1, 2]}).json
    assert back == {"content": "x xx", "prompt": "x xx"}


def test_a_chat_as_its_prompt(server: Served) -> None:
    body = {"model": "fake", "messages": ASK, "tools": TOOLS}
    prompt = server.ask("POST", "/apply-template", body).json["prompt"]
    assert prompt == server.model.render(ASK, tools=TOOLS)
    assert "get_weather" in prompt and prompt.endswith("<|im_start|>assistant\n")
    without = server.ask("POST", "/apply-template", body | {"add_generation_prompt": False}).json["prompt"]
    assert without + "<|im_start|>assistant\n" == prompt


def test_an_answer_that_was_begun_is_the_end_of_the_prompt(server: Served) -> None:
    begun = [*ASK, {"role": "assistant", "content": "It is"}]
    prompt = server.model.render(ASK) + "It is"
    for how in ({}, {"continue_final_message": True}, {"continue_final_message": True, "add_generation_prompt": False}):
        answered = server.ask("POST", "/apply-template", {"model": "fake", "messages": begun, **how})
        assert answered.json["prompt"] == prompt, how
    for how, end in (({"add_generation_prompt": True}, "is<|im_end|>\n<|im_start|>assistant\n"),
                     ({"add_generation_prompt": False}, "<|im_start|>assistant\nIt is<|im_end|>\n")):  # fmt: skip
        answered = server.ask("POST", "/apply-template", {"model": "fake", "messages": begun, **how})
        assert answered.json["prompt"].endswith(end), how


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/apply-template", {"messages": ASK, "continue_final_message": True}, "messages"),
        ("/apply-template", {"messages": ASK, "tools": [{}]}, "tools[0].function.name"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(server: Served, path: str, body: dict[str, Any], param: str) -> None:
    answered = server.ask("POST", path, {"model": "fake"} | body)
    assert (answered.status, answered.error["param"]) == (400, param), answered.body
