"""``ingle convert`` and ``ingle serve`` with a vision model and the official client: a question about a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from ingle.runtime.llama.vocab import Vocab
from seeing import CASES, VISION, data_url, golden, picture
from shell import finished, ingle

GOLDEN = golden("smolvlm")
MOST = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vision") / "tiny.gguf"
    code, printed, complaints = finished("convert", VISION / "smolvlm", "-o", out, "--dtype", "f32", "--json")
    assert code == 0, complaints
    done = json.loads(printed)
    assert (done["path"], done["projector"]["path"]) == (str(out), str(out.with_name("tiny-mmproj.gguf")))
    assert done["proof"]["strings"] >= 4000
    return out


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[openai.OpenAI]:
    """Of a server that found the projector beside the model."""
    settings = ("--kv-type", "f32", "--flash-attention", "off", "--threads", "1", "--port", "0")
    with ingle("serve", model, *settings, "--log-level", "warning") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as asking:
            yield asking
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def question(case: str) -> Any:
    shown = [
        {"type": "image_url", "image_url": {"url": data_url(picture("smolvlm", one).read_bytes())}}
        for one in GOLDEN["cases"][case]["pictures"]
    ]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": GOLDEN["question"]}]}]


def ask(client: openai.OpenAI, messages: Any, **settings: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=messages, max_tokens=MOST, temperature=0, **settings)


def expected(model: Path, case: str) -> list[bytes]:
    """The bytes of each token of transformers' greedy answer."""
    with Vocab.open(model) as vocab:
        return [vocab.piece(token, special=True) for token in GOLDEN["cases"][case]["answer"]]


@pytest.mark.parametrize("case", CASES)
def test_a_question_about_a_picture_gets_the_greedy_answer_of_transformers(
    client: openai.OpenAI, model: Path, case: str
) -> None:
    answer = ask(client, question(case), logprobs=True)
    (choice,) = answer.choices
    assert [bytes(token.bytes) for token in choice.logprobs.content] == expected(model, case)
    assert choice.message.content == b"".join(expected(model, case)).decode("utf-8", "replace")
    assert answer.usage.prompt_tokens == len(GOLDEN["cases"][case]["ids"])
    assert answer.usage.completion_tokens == MOST


def test_the_list_of_models_says_that_it_sees(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.model_extra is not None and model.model_extra["ingle"]["vision"] is True


def test_it_streams_as_well(client: openai.OpenAI, model: Path) -> None:
    with ask(client, question("other"), stream=True, logprobs=True) as stream:
        tokens = [t for chunk in stream for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    assert [bytes(token.bytes) for token in tokens] == expected(model, "other")


def test_how_closely_to_look_is_reported_as_ignored(client: openai.OpenAI) -> None:
    messages = question("fitting")
    messages[0]["content"][0]["image_url"]["detail"] = "low"
    answer = client.chat.completions.with_raw_response.create(model="tiny", messages=messages, max_tokens=1)
    assert answer.headers["X-Ingle-Ignored"] == "messages[0].content[0].image_url.detail"
    messages[0]["content"][0]["image_url"]["detail"] = "auto"
    answer = client.chat.completions.with_raw_response.create(model="tiny", messages=messages, max_tokens=1)
    assert "X-Ingle-Ignored" not in answer.headers


URL = "messages[0].content[0].image_url.url"
REFUSED = [
    ("http://127.0.0.1:1/cat.png", "not fetched", URL),
    ("https://example.com/cat.png", "not fetched", URL),
    ("file:///etc/hostname", "not fetched", URL),
    ("/etc/hostname", "not fetched", URL),
    ("data:text/plain;base64,aGk=", "PNG, JPEG or WebP", URL),
    ("data:image/png,hi", "PNG, JPEG or WebP", URL),
    ("data:image/png;base64,a===", "base64", URL),
    (data_url(b"<svg/>"), "format is not known", URL),
    (data_url(picture("smolvlm", "other").read_bytes()[:300]), "no picture that can be read", URL),
]


@pytest.mark.parametrize(("url", "message", "param"), REFUSED)
def test_what_is_no_picture_is_refused_with_its_place(
    client: openai.OpenAI, url: str, message: str, param: str
) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        ask(client, [{"role": "user", "content": content}])
    assert caught.value.param == param


def test_too_many_pictures_are_refused(client: openai.OpenAI) -> None:
    messages = question("fitting")
    messages[0]["content"] = messages[0]["content"][:1] * 17
    with pytest.raises(openai.BadRequestError, match="at most 16") as caught:
        ask(client, messages)
    assert caught.value.param == "messages[0].content[16].image_url.url"


def test_text_alone_is_answered_too(client: openai.OpenAI) -> None:
    answer = ask(client, [{"role": "user", "content": "Who goes there?"}])
    assert answer.usage.prompt_tokens == len(GOLDEN["cases"]["fitting"]["ids"]) - 33


def test_the_command_line_shows_a_picture(model: Path) -> None:
    settings = ("--temp", "0", "--max-tokens", str(MOST), "--kv-type", "f32", "--flash-attention", "off", "--json")
    shown = ("--image", picture("smolvlm", "fitting"), GOLDEN["question"])
    code, printed, complaints = finished("run", model, *shown, *settings)
    assert code == 0, complaints
    assert json.loads(printed)["text"] == b"".join(expected(model, "fitting")).decode("utf-8", "replace")


def test_a_picture_needs_a_question_and_a_place(model: Path) -> None:
    shown = ("--image", picture("smolvlm", "fitting"))
    for arguments in (("run", model, *shown, "--raw", "hi"), ("serve", "--mmproj", model, "--port", "0")):
        code, printed, complaints = finished(*arguments)
        assert (code, printed) == (2, ""), complaints


def test_a_projector_can_be_named_and_a_model_of_text_says_what_it_lacks(model: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(model.read_bytes())
    shown = ("--image", picture("smolvlm", "fitting"), "hi", "--max-tokens", "1")
    code, _, complaints = finished("run", alone, *shown)
    assert code == 2
    assert "--mmproj FILE" in complaints
    code, _, complaints = finished("run", alone, *shown, "--mmproj", model.with_name("tiny-mmproj.gguf"))
    assert code == 0, complaints


def test_a_quantized_file_has_the_vision_part_of_the_one_it_was_made_from(model: Path) -> None:
    code, printed, complaints = finished("quantize", model, "-t", "Q8_0")
    assert code == 0, complaints
    shown = ("--image", picture("smolvlm", "fitting"), "hi", "--max-tokens", "1")
    code, _, complaints = finished("run", model.with_name("tiny-Q8_0.gguf"), *shown)
    assert (code, "tiny-Q8_0.gguf" in printed) == (0, True), complaints


def test_a_checkpoint_is_quantized_into_two_files(tmp_path: Path) -> None:
    code, printed, complaints = finished("quantize", VISION / "smolvlm", "-t", "Q8_0", "-o", tmp_path / "m.gguf")
    assert code == 0, complaints
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-mmproj.gguf", "m.gguf"]
    assert "m-mmproj.gguf" in printed


def test_a_model_of_text_answers_400(model: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(model.read_bytes())
    with ingle("serve", alone, "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60) as there,
            pytest.raises(openai.BadRequestError, match="reads no pictures") as caught,
        ):
            there.chat.completions.create(model="alone", messages=question("fitting"))
        assert caught.value.param == URL
        process.terminate()
        process.communicate(timeout=60)
