"""A question about a picture in every dialect, by its own client: the same tokens in, the same answer out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from ingle.convert import convert
from ingle.convert.errors import BadRequest
from ingle.runtime.llama.vocab import Vocab
from ingle.runtime.model import Model
from ingle.runtime.options import LoadOptions
from seeing import CASES, VISION, data_url, golden, messages, picture
from shell import ingle

GOLDEN = golden("smolvlm")
MOST = 12
EXACT = LoadOptions(kv_type="f32", flash_attention="off", threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(VISION / "smolvlm", tmp_path_factory.mktemp("pictures") / "tiny.gguf", "f32").path


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    settings = ("--kv-type", "f32", "--flash-attention", "off", "--threads", "1", "--port", "0")
    with ingle("serve", model, *settings, "--log-level", "warning") as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


@pytest.fixture(scope="module")
def expected(model: Path) -> dict[str, str]:
    """Transformers' greedy answers."""
    with Vocab.open(model) as vocab:
        pieces = {case: GOLDEN["cases"][case]["answer"] for case in CASES}
        return {
            case: b"".join(vocab.piece(token, special=True) for token in answer).decode("utf-8", "replace")
            for case, answer in pieces.items()
        }


def shown(case: str) -> list[str]:
    """The pictures of a case in base64."""
    names = GOLDEN["cases"][case]["pictures"]
    return [base64.b64encode(picture("smolvlm", name).read_bytes()).decode() for name in names]


def num_tokens(case: str) -> int:
    return len(GOLDEN["cases"][case]["ids"])


@pytest.mark.parametrize("case", CASES)
def test_anthropic_s_blocks(url: str, expected: dict[str, str], case: str) -> None:
    blocks: Any = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}} for data in shown(case)
    ]
    asked: Any = [{"role": "user", "content": [*blocks, {"type": "text", "text": GOLDEN["question"]}]}]
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, timeout=60) as client:
        answer: Any = client.messages.create(
            model="tiny", messages=asked, max_tokens=MOST, extra_body={"temperature": 0}
        )
        counted = client.messages.count_tokens(model="tiny", messages=asked).input_tokens
    assert answer.content[0].text == expected[case]
    assert counted == num_tokens(case)
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == counted


@pytest.mark.parametrize("case", CASES)
def test_responses_input_images(url: str, expected: dict[str, str], case: str) -> None:
    parts: Any = [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"} for data in shown(case)]
    asked: Any = [{"role": "user", "content": [*parts, {"type": "input_text", "text": GOLDEN["question"]}]}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as client:
        answer = client.responses.create(model="tiny", input=asked, max_output_tokens=MOST, temperature=0)
        counted = client.responses.input_tokens.count(model="tiny", input=asked).input_tokens
        asked[0]["content"][0]["detail"] = "high"
        again = client.responses.with_raw_response.create(model="tiny", input=asked, max_output_tokens=1)
    assert answer.output_text == expected[case]
    assert answer.usage is not None and counted == answer.usage.input_tokens == num_tokens(case)
    assert again.headers["X-Ingle-Ignored"] == "input[0].content[0].detail"


@pytest.mark.parametrize("case", CASES)
def test_ollama_s_images(url: str, expected: dict[str, str], case: str) -> None:
    options = {"num_predict": MOST, "temperature": 0}
    with ollama.Client(host=url, timeout=60) as client:
        asked = [{"role": "user", "content": GOLDEN["question"], "images": shown(case)}]
        chat = client.chat("tiny", asked, options=options)
        written = client.generate("tiny", GOLDEN["question"], images=shown(case), options=options)
        capabilities = client.show("tiny").capabilities
    assert chat.message.content == written.response == expected[case]
    assert chat.prompt_eval_count == written.prompt_eval_count == num_tokens(case)
    assert "vision" in (capabilities or ())


def test_a_result_of_a_tool_may_be_a_picture(url: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": shown("fitting")[0]}
    blocks: Any = [
        {"type": "text", "text": "Look:"},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image", "source": source}]},
        {"type": "text", "text": "What is this?"},
    ]
    text = [blocks[0], {**blocks[1], "content": "none"}, blocks[2]]
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0, timeout=60) as client:
        seen, unseen = (
            client.messages.count_tokens(model="tiny", messages=[{"role": "user", "content": content}]).input_tokens
            for content in (blocks, text)
        )
    assert seen > unseen + 16


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "IMAGE"]}]}, None),
        ("/v1/responses", {"input": [{"role": "user", "content": ["IMAGE"]}]}, "input[0].content[0].image_url"),
        ("/api/chat", {"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}, "messages[0].images[0]"),
    ],
)
def test_what_is_no_picture_is_refused_by_the_place_that_the_client_knows(
    url: str, path: str, body: dict[str, Any], place: str | None
) -> None:
    images: dict[str, Any] = {
        "/v1/messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        "/v1/responses": {"type": "input_image", "image_url": data_url(b"hi")},
    }
    for message in body.get("messages", body.get("input")):
        if isinstance(message["content"], list):
            message["content"] = [images[path] if part == "IMAGE" else part for part in message["content"]]
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=60) as client:
        answer = client._client.post(f"{url}{path}", json={"model": "tiny", "max_tokens": 5, "system": "b", **body})
    assert answer.status_code == 400
    assert f"{place or 'messages[0].content[1].source.data'}: this is no picture" in answer.text


def test_a_prompt_is_counted_as_it_is_answered(model: Path) -> None:
    for isolation in ("thread", "process"):
        with Model.load(model, options=EXACT, isolation=isolation) as loaded:
            for case in CASES:
                assert loaded.count(messages("smolvlm", case)) == num_tokens(case)
    with Model.load(model, options=LoadOptions(context_length=32)) as small:
        assert small.count(messages("smolvlm", "both")) == num_tokens("both") > 32
    alone = model.with_name("alone.gguf")
    alone.write_bytes(model.read_bytes())
    with Model.load(alone, options=EXACT) as blind, pytest.raises(BadRequest, match="reads no pictures"):
        blind.count(messages("smolvlm", "fitting"))
