"""Embeddings over HTTP: an encoder in its own process, through the clients of OpenAI and Ollama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import ollama
import openai
import pytest
from fake_model import FakeCatalog
from ingle.convert import convert
from ingle.runtime.tasks.encoder import Encoder
from served import Served, served
from shell import ingle

TEXTS = ["Shall I compare thee", "to a summer's day?"]


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentence")
    encoders.write(folder / "checkpoint", encoders.recipe("bert_sentence"))
    return convert(folder / "checkpoint", folder / "sentence.gguf", "f32").path


@pytest.fixture(scope="module")
def server(sentence: Path) -> Iterator[Served]:
    with ingle("serve", sentence, "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        yield Served(process.stdout.readline().strip(), FakeCatalog())
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


@pytest.fixture(scope="module")
def expected(sentence: Path) -> Any:
    with Encoder(sentence) as encoder:
        return encoder.embed(TEXTS), sum(len(encoder.tokenize(text)) for text in TEXTS)


def test_openais_client_gets_the_vectors_in_both_encodings(server: Served, expected: Any) -> None:
    vectors, num_tokens = expected
    with server.client() as client:
        default = client.embeddings.create(model="sentence", input=TEXTS)  # base64, as the client asks for it
        plain = client.embeddings.create(model="sentence", input=TEXTS, encoding_format="float")
        one = client.embeddings.create(model="sentence", input=TEXTS[0])
    for answer in (default, plain):
        np.testing.assert_allclose([row.embedding for row in answer.data], vectors, atol=1e-6)
        assert answer.usage.prompt_tokens == num_tokens
    np.testing.assert_allclose(one.data[0].embedding, vectors[0], atol=1e-6)


def test_fewer_dimensions_have_length_one(server: Served, expected: Any) -> None:
    with server.client() as client:
        row = client.embeddings.create(model="sentence", input=TEXTS[0], dimensions=4).data[0].embedding
    short = expected[0][0][:4]
    np.testing.assert_allclose(row, short / np.linalg.norm(short), atol=1e-6)


def test_ollamas_client_gets_them_too(server: Served, expected: Any) -> None:
    with ollama.Client(host=server.url) as client:
        found = client.embed("sentence", TEXTS)
        old = client.embeddings("sentence", TEXTS[0])
    np.testing.assert_allclose(found.embeddings, expected[0], atol=1e-6)
    np.testing.assert_allclose(old.embedding, expected[0][0], atol=1e-6)
    assert found.prompt_eval_count == expected[1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [""]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"dimensions": 100_000}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"input": "word " * 5000}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(server: Served, fields: dict[str, Any], param: str) -> None:
    answered = server.ask("POST", "/v1/embeddings", {"model": "sentence", "input": "x"} | fields)
    assert (answered.status, answered.error["param"]) == (400, param), answered.body


def test_an_encoder_does_not_chat(server: Served) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError, match="does not generate text"):
        client.chat.completions.create(model="sentence", messages=[{"role": "user", "content": "hi"}])


def test_a_model_that_writes_does_not_embed() -> None:
    with served(FakeCatalog("fake")) as server:
        answered = server.ask("POST", "/v1/embeddings", {"model": "fake", "input": "x"})
    assert answered.status == 400 and "gives no embeddings" in answered.error["message"]


def test_its_tokens_are_its_own(server: Served) -> None:
    tokens = server.ask("POST", "/tokenize", {"model": "sentence", "content": "thee"}).json["tokens"]
    assert server.ask("POST", "/detokenize", {"model": "sentence", "tokens": tokens}).json["content"] == "thee"


def test_truncation_is_refused(server: Served) -> None:
    body = {"model": "sentence", "input": "x"}
    assert server.ask("POST", "/api/embed", body | {"truncate": False}).status == 200
    answered = server.ask("POST", "/api/embed", body | {"truncate": True})
    assert answered.status == 400 and "truncate" in answered.json["error"]
