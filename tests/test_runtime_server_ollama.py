"""Ollama's dialect, driven by Ollama's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import ollama
import pytest
from answers import EXAMPLES, HERMES, TOOLS
from fake_model import FakeCatalog, Script
from ingle.convert import convert
from ingle.runtime.server.listening import ServeOptions
from served import Served, served
from shell import ingle

ASK: Any = [{"role": "user", "content": "How is the weather?"}]


def scripted(text: str, template: str = HERMES, size: int = 3) -> FakeCatalog:
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))
    return FakeCatalog("fake", script=Script(pieces, template=template))


OPEN: list[ollama.Client] = []


def client(server: Served) -> ollama.Client:
    OPEN.append(ollama.Client(host=server.url))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def _hang_up() -> Iterator[None]:
    """The clients of a test are closed behind it."""
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith(("hermes", "glm", "never"))])
def test_a_stream_adds_up_to_the_whole_message(name: str) -> None:
    example = EXAMPLES[name]
    with served(scripted(example.text, example.template)) as server:
        whole = client(server).chat("fake", ASK, tools=TOOLS)
        lines = list(client(server).chat("fake", ASK, tools=TOOLS, stream=True))
    content = "".join(line.message.content or "" for line in lines)
    thinking = "".join(line.message.thinking or "" for line in lines)
    calls = [call for line in lines for call in line.message.tool_calls or ()]
    assert (
        (content, thinking)
        == (whole.message.content, whole.message.thinking or "")
        == (example.content, example.reasoning)
    )
    for found in (calls, whole.message.tool_calls or ()):
        assert [(c.function.name, c.function.arguments) for c in found] == [
            (call.name, json.loads(call.arguments)) for call in example.calls
        ]
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].done_reason == whole.done_reason == "stop"
    assert lines[-1].eval_count == whole.eval_count and whole.prompt_eval_duration == 500_000_000


def test_generate_streams_and_does_not() -> None:
    with served(scripted("Once upon")) as server:
        whole = client(server).generate("fake:latest", "Tell me", system="Be brief.")
        lines = list(client(server).generate("fake", "Tell me", stream=True))
        raw = client(server).generate("fake", "Tell me", raw=True)
        works = server.model.works
    assert whole.response == "".join(line.response for line in lines) == raw.response == "Once upon"
    assert [message["role"] for message in works[0].prompt] == ["system", "user"]
    assert works[2].prompt == "Tell me"


def test_options_reach_the_model() -> None:
    options = {
        "temperature": 0.25,
        "top_k": 5,
        "num_predict": 2,
        "seed": 7,
        "stop": ["END"],
        "num_ctx": 128,
        "num_thread": 4,
    }
    with served(scripted("a b c d e", size=2)) as server:
        body = {"model": "fake", "messages": ASK, "stream": False, "options": options, "odd": 1}
        answered = server.ask("POST", "/api/chat", body)
        asked = server.model.works[0].asked
    assert (asked["sampling"].temperature, asked["sampling"].top_k, asked["sampling"].seed) == (0.25, 5, 7)
    assert (asked["max_tokens"], asked["stop"]) == (2, ("END",))
    assert answered.json["done_reason"] == "length"
    assert answered.headers["x-ingle-ignored"] == "odd, options.num_thread"


def test_logprobs_come_as_a_list() -> None:
    with served(scripted("Once upon")) as server:
        body = {"model": "fake", "messages": ASK, "logprobs": True, "top_logprobs": 2, "stream": False}
        entries = server.ask("POST", "/api/chat", body).json["logprobs"]
    assert "".join(entry["token"] for entry in entries) == "Once upon"
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)


def test_format_shapes_the_answer() -> None:
    with served(scripted("{}")) as server:
        client(server).chat("fake", ASK, format="json")
        client(server).generate("fake", "x", format={"type": "object", "properties": {"a": {"type": "string"}}})
        shapes = [work.asked["output"].value for work in server.model.works]
    assert shapes == [{"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}}]


@pytest.mark.parametrize(
    ("path", "fields", "complaint"),
    [
        ("chat", {"messages": []}, "messages"),
        ("chat", {"format": "yaml"}, "format"),
        ("chat", {"format": {"type": "fruit"}}, "keyword 'type'"),
        ("chat", {"options": {"temperature": -1}}, "options.temperature"),
        ("chat", {"options": {"num_ctx": 99999}}, "options.num_ctx"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"think": True}, "does not think"),
        (
            "chat",
            {"messages": [{"role": "user", "content": "a", "images": ["a=="]}]},
            "messages[0].images[0] is not base64",
        ),
        ("generate", {"images": ["aGk="], "raw": True}, "raw prompt"),
        ("generate", {"suffix": "x"}, "suffix"),
        ("generate", {"context": [1]}, "context"),
        ("generate", {"raw": True, "system": "x"}, "system"),
    ],
)
def test_what_makes_no_sense_is_refused_in_its_shape(path: str, fields: dict[str, Any], complaint: str) -> None:
    base = {"model": "fake", "messages": ASK} if path == "chat" else {"model": "fake", "prompt": "x"}
    with served(scripted("x", HERMES.replace("think", "thought"))) as server:
        answered = server.ask("POST", f"/api/{path}", base | fields)
    assert answered.status == 400 and set(answered.json) == {"error"}
    assert complaint in answered.json["error"]


def test_models_are_listed_and_loaded_and_given_up() -> None:
    with served(FakeCatalog("fake", "other", script=Script(template=HERMES))) as server:
        speaker = client(server)
        assert [model.model for model in speaker.list().models] == ["fake", "other"]
        assert [model.model for model in speaker.ps().models] == ["fake"]
        assert speaker.generate("other", keep_alive="1h").done_reason == "load"
        assert [model.model for model in speaker.ps().models] == ["fake", "other"]
        assert speaker.generate("other", keep_alive=0).done_reason == "unload"
        deadline = time.monotonic() + 10
        while len(speaker.ps().models) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [model.model for model in speaker.ps().models] == ["fake"]
        assert server.catalog.loads[-1].closed
        assert server.ask("GET", "/api/version").json["version"]
        with pytest.raises(ollama.ResponseError, match="there is no model"):
            speaker.chat("nobody", ASK)


def test_keep_alive_waits_for_the_end_of_an_answer() -> None:
    with served(FakeCatalog("fake", script=Script(piece_s=0.2))) as server:
        answered = server.chat(keep_alive="0s")
        assert answered.status == 200 and answered.json["choices"][0]["message"]["content"] == "Once upon a time."
        deadline = time.monotonic() + 10
        while not server.model.closed and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.model.closed


def test_pull_and_delete_need_leave() -> None:
    with served(scripted("x")) as server:
        for call in (lambda: client(server).pull("org/new"), lambda: client(server).delete("fake")):
            with pytest.raises(ollama.ResponseError, match="--admin") as caught:
                call()
            assert caught.value.status_code == 403


def test_pull_reports_and_delete_removes() -> None:
    with served(scripted("x"), ServeOptions(port=0, admin=True)) as server:
        speaker = client(server)
        news = list(speaker.pull("org/new", stream=True))
        assert [one.status for one in news] == ["pulling manifest", "downloading", "success"]
        assert (news[1].completed, news[1].total) == (5, 10)
        assert speaker.pull("org/other").status == "success"
        with pytest.raises(ollama.ResponseError, match="no org/broken"):
            list(speaker.pull("org/broken", stream=True))
        speaker.delete("org/new")
        assert [model.model for model in speaker.list().models] == ["fake", "org/other"]


@pytest.fixture(scope="module")
def real(bard_gguf: Mapping[str, Path]) -> Iterator[ollama.Client]:
    with ingle("serve", bard_gguf["f32"], "--kv-type", "f32", "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        speaker = ollama.Client(host=process.stdout.readline().strip())
        yield speaker
        speaker.close()
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def test_a_real_model_chats_shows_itself_and_keeps_to_a_schema(real: ollama.Client) -> None:
    assert real.chat("bard-f32", ASK, options={"num_predict": 8, "temperature": 0}).eval_count == 8
    shown = real.show("bard-f32")
    assert shown.details is not None and shown.details.quantization_level == "F32"
    assert real.list().models[0].details.quantization_level == "F32"  # type: ignore[union-attr]
    assert shown.modelinfo is not None and shown.modelinfo["general.architecture"] == "llama"
    assert shown.template and "completion" in (shown.capabilities or ())
    schema = {
        "type": "object",
        "properties": {"age": {"enum": [1, 2]}},
        "required": ["age"],
        "additionalProperties": False,
    }
    text = real.chat("bard-f32", ASK, format=schema, options={"num_predict": 100}).message.content
    assert json.loads(text or "")["age"] in (1, 2)


def test_embeddings_of_a_model_for_tasks(tmp_path: Path) -> None:
    encoders.write(tmp_path / "checkpoint", encoders.recipe("bert_sentence"))
    path = convert(tmp_path / "checkpoint", tmp_path / "sentence.gguf", "f32").path
    with ingle("serve", path, "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        with ollama.Client(host=process.stdout.readline().strip()) as speaker:
            found = speaker.embed("sentence:latest", ["a", "b c"], dimensions=4)
            one = speaker.embeddings("sentence", "a").embedding
            with pytest.raises(ollama.ResponseError, match="token"):
                speaker.embed("sentence", "word " * 5000)
            with pytest.raises(ollama.ResponseError, match="does not continue texts"):
                speaker.chat("sentence", ASK)
        process.terminate()
        process.communicate(timeout=60)
    assert [len(row) for row in found.embeddings] == [4, 4] and (found.prompt_eval_count or 0) > 2
    short = np.array(one[:4]) / np.linalg.norm(one[:4])
    np.testing.assert_allclose(found.embeddings[0], short, atol=1e-5)


def test_an_answer_that_was_begun_goes_on() -> None:
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is"}]
    with served(scripted(" fair.")) as server:
        answer = client(server).chat("fake", begun)
        assert (answer.message.content, server.model.works[-1].asked["continue_final_message"]) == (" fair.", True)
