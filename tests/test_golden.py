"""Through the whole house: examples/bard → convert → Q8_0 → ``ingle serve`` → the official client.

``golden/bard_q8_0.json`` holds greedy answers; ``narrowest`` is the smallest lead (in nats) that the chosen token had
over the next one, so a difference is a fault of ours and not of a processor that adds in another order.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from shell import finished, ingle

GOLDEN: Any = json.loads((Path(__file__).parent / "golden" / "bard_q8_0.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def url(bard_gguf: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the quantized example; it must end cleanly and leave no child."""
    file = tmp_path_factory.mktemp("golden") / "bard.gguf"
    code, _, complaints = finished("quantize", bard_gguf["f16"], "-t", "Q8_0", "-o", file)
    assert code == 0, complaints
    with ingle("serve", file, "--port", "0") as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        children = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(signal.SIGTERM)
        rest, log = server.communicate(timeout=60)
    assert (server.returncode, rest) == (0, ""), log
    assert children
    assert not any(child.is_running() for child in children)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        yield client


@pytest.mark.parametrize("golden", GOLDEN["chats"], ids=lambda golden: golden["messages"][-1]["content"])
def test_chats(client: openai.OpenAI, golden: Any) -> None:
    answer = client.chat.completions.create(model="bard", messages=golden["messages"], temperature=0)
    assert answer.choices[0].message.content == golden["content"]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == golden["completion_tokens"]


@pytest.mark.parametrize("golden", GOLDEN["chats"][:3], ids=lambda golden: golden["messages"][-1]["content"])
def test_a_streamed_chat_is_the_same(client: openai.OpenAI, golden: Any) -> None:
    with client.chat.completions.create(
        model="bard", messages=golden["messages"], temperature=0, stream=True
    ) as stream:
        text = "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)
    assert text == golden["content"]


def test_completions_as_one_list(client: openai.OpenAI) -> None:
    prompts = [golden["prompt"] for golden in GOLDEN["completions"]]
    answer = client.completions.create(model="bard", prompt=prompts, temperature=0, max_tokens=24)
    assert [choice.text for choice in answer.choices] == [golden["text"] for golden in GOLDEN["completions"]]
