"""What the grammars allow: random walks through them, over a vocabulary of bytes, are read back as demanded."""

from __future__ import annotations

import json
import random
from typing import Any

import answers
import llguidance
import numpy as np
import pytest
from ingle.runtime.chat import Conversation, Output
from ingle.runtime.chat.grammar import CHANNELS, NEXT
from ingle.runtime.chat.prompt import Prompt

END = 256
FREE = 60
"""More bytes than this are only allowed where any text is: then the walk writes the closing."""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "enum": ["Paris", "Rome"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 3},
                    "ok": {"type": "boolean"},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("get_weather", "find_it")
]
TEMPLATES = {
    name: getattr(answers, name)
    for name in (
        "HERMES",
        "THINKING",
        "CODER",
        "GLM",
        "DSML",
        "MISTRAL",
        "NAMED",
        "KIMI",
        "LLAMA",
        "LFM",
        "GEMMA",
        "OSS",
        "MUSE",
        "KIMI_TAGGED",
        "ELEMENTS",
    )
}


class Bytes:
    """A vocabulary of the 256 bytes and an end."""

    eos_token_id, bos_token_id, special_token_ids = END, None, (END,)
    tokens = (*(bytes([byte]) for byte in range(END)), b"\xff<end>")

    def __call__(self, text: Any) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


TABLE = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()), n_vocab=END + 1)


def walk(prompt: Prompt, seed: int) -> str:
    """A random text that the grammar of ``prompt`` accepts as a whole."""
    rng, written = random.Random(seed), b""
    matcher = llguidance.LLMatcher(TABLE, prompt.grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    form = prompt.reading.form
    closings = [
        form.reasoning[1].strip().encode(),
        (CHANNELS[form.channels].end + NEXT).encode() if form.channels else b"",
    ]
    for _ in range(1500):
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = [byte for byte in range(END + 1) if bits[byte // 8] >> (byte % 8) & 1]
        assert not matcher.is_error(), matcher.get_error()
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.3):
            return written.decode()
        letters = [byte for byte in allowed if byte != END and chr(byte) not in " \n"] or allowed
        byte = next_of(written, closings, allowed) if len(allowed) > FREE else rng.choice(letters)
        assert matcher.consume_token(byte)
        written += bytes([byte])
    raise AssertionError(f"no end after {written[-200:]!r}")


def next_of(written: bytes, closings: list[bytes], allowed: list[int]) -> int:
    for closing in filter(None, closings):
        done = next((k for k in range(len(closing) - 1, 0, -1) if written.endswith(closing[:k])), 0)
        if closing[done] in allowed:
            return closing[done]
    return ord("a")


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("choice", ["required", "=find_it"])
def test_a_demanded_call_is_read_back(name: str, choice: str) -> None:
    conversation = Conversation({"default": TEMPLATES[name]}, {"bos_token": "<s>", "eos_token": "</s>"})
    several = choice == "required"
    prompt = conversation.prompt(
        [{"role": "user", "content": "hi"}], tools=TOOLS, tool_choice=choice, parallel_tool_calls=several
    )
    for seed in range(5):
        text = walk(prompt, seed)
        _, content, calls = prompt.reading.read(text)
        assert calls and not content.strip(), text
        assert {call.name for call in calls} <= ({"get_weather", "find_it"} if several else {"find_it"})
        assert several or len(calls) == 1
        for call in calls:
            arguments = json.loads(call.arguments)
            assert arguments["city"] in ("Paris", "Rome") and arguments.get("days", 1) in (1, 2, 3)
            assert set(arguments) <= {"city", "days", "ok"} and arguments.get("ok", True) in (True, False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_shaped_content_comes_behind_the_reasoning(name: str) -> None:
    conversation = Conversation({"default": TEMPLATES[name]}, {"bos_token": "<s>", "eos_token": "</s>"})
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    prompt = conversation.prompt([{"role": "user", "content": "hi"}], output=Output("json", schema))
    for seed in range(5):
        text = walk(prompt, seed)
        _, content, calls = prompt.reading.read(text)
        assert json.loads(content)["a"] in (1, 2) and not calls, text


def test_content_or_a_call_where_both_may_be() -> None:
    conversation = Conversation({"default": answers.KIMI}, {"bos_token": "<s>", "eos_token": "</s>"})
    prompt = conversation.prompt(
        [{"role": "user", "content": "hi"}], tools=TOOLS, output=Output("choice", ("yes", "no"))
    )
    read = [prompt.reading.read(walk(prompt, seed)) for seed in range(12)]
    assert all(bool(calls) != (content in ("yes", "no")) for _, content, calls in read)
    assert {bool(calls) for _, _, calls in read} == {True, False}
