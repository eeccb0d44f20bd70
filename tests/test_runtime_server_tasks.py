"""Tasks over HTTP: our own route, OpenAI's, Cohere's, vLLM's and text-embeddings-inference's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import judges
import numpy as np
import pytest
import tasked
from fake_model import FakeCatalog
from ingle.convert import convert
from ingle.convert.errors import BadGGUF, EngineCrashed, UnsupportedModel
from ingle.runtime.options import AdapterFile, LoadOptions
from ingle.runtime.server.catalog import StoreCatalog
from ingle.runtime.server.pool import Installed
from ingle.runtime.store.store import Store
from ingle.runtime.tasks.process import TaskProcess
from served import Served, served
from test_runtime_seq2seq import recipe as t5_recipe

FILES = {"labels": "bert_labels", "rank": "roberta_rank", "vectors": "bert_states", "masks": "bert_masks", "t5": "t5"}


class TaskCatalog(FakeCatalog):
    """Models for tasks, and ``fake``, which continues texts."""

    def __init__(self, files: dict[str, Path]) -> None:
        super().__init__("fake", *files)
        self._files = files
        self.processes: dict[str, TaskProcess] = {}

    def load(self, installed: Installed) -> Any:
        if installed.name == "fake":
            return super().load(installed)
        model = TaskProcess(self._files[installed.name], threads=1)
        self.processes[installed.name] = model
        return model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    files = {}
    for name, made in FILES.items():
        recipe = t5_recipe("t5") if made == "t5" else tasked.recipe(made)
        if name == "vectors":
            recipe["files"] = {
                "modules.json": [
                    {"type": "sentence_transformers.models.Transformer", "path": ""},
                    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
                ],
                "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
                "config_sentence_transformers.json": {"prompts": {"query": "Shall I "}},
            }
        tasked.write(folder / name, recipe)
        files[name] = convert(folder / name, folder / f"{name}.gguf", "f32").path
    judges.write(folder / "judge", judges.recipe("tied"))
    files["judge"] = convert(folder / "judge", folder / "judge.gguf", "f32").path
    with served(TaskCatalog(files)) as running:
        yield running


def golden(name: str) -> Any:
    return tasked.recipe(FILES[name])["golden"]


def test_any_task_by_its_name(server: Served) -> None:
    case = golden("masks")[0]
    body = {"model": "masks", "input": [case["input"]], "parameters": {"top_k": 3}}
    answer = server.ask("POST", "/v1/tasks/fill-mask", body)
    assert answer.status == 200, answer.body
    found = answer.json["results"][0]["masks"][0]
    assert [one["token"] for one in found] == [one["token"] for one in case["masks"][0]]
    question = {"inputs": "How nice", "parameters": {"candidate_labels": ["a", "b"]}, "model": "labels"}
    answer = server.ask("POST", "/v1/tasks/zero-shot-classification", question)
    assert sorted(answer.json["results"][0]["labels"]) == ["a", "b"]
    written = t5_recipe("t5")["golden"][0]["texts"][0]
    body = {"model": "t5", "input": written["input"], "parameters": {"max_new_tokens": 16}}
    answer = server.ask("POST", "/v1/tasks/summarization", body)
    assert answer.json["results"][0]["tokens"] == len(written["ids"][0])
    assert answer.json["results"][0]["finish_reason"] == "length"


def test_a_task_that_writes_streams(server: Served) -> None:
    body = {"model": "t5", "input": "Shall I?", "parameters": {"max_new_tokens": 12, "temperature": 1.5, "seed": 5}}
    whole = server.ask("POST", "/v1/tasks/summarization", body).json
    answer = server.ask("POST", "/v1/tasks/summarization", {**body, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last, end = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n\n") if line]
    assert (json.loads(last), end) == (whole, b"[DONE]")
    deltas = [json.loads(event) for event in events if not event.startswith(b":")]
    assert {(one["object"], one["task"], one["model"]) for one in deltas} == {("task.delta", "summarization", "t5")}
    assert "".join(one["delta"] for one in deltas) == whole["results"][0]["summary_text"]
    for wrong, words in (
        ({"parameters": {"num_beams": 2}}, "beams change their minds"),
        ({"input": ["a", "b"]}, "one input can be streamed"),
        ({"model": "masks"}, "cannot do summarization"),
    ):
        refused = server.ask("POST", "/v1/tasks/summarization", {**body, "stream": True, **wrong})
        assert (refused.status, words in refused.error["message"]) == (400, True)
    refused = server.ask("POST", "/v1/tasks/fill-mask", {"model": "masks", "input": "<mask>", "stream": True})
    assert (refused.status, "nothing to stream" in refused.error["message"]) == (400, True)


def test_openais_embeddings(server: Served) -> None:
    cases = golden("vectors")[:3]
    texts = [case["input"] for case in cases]
    client = server.client()
    answer = client.embeddings.create(model="vectors", input=texts)  # the client asks for base64
    assert answer.usage.prompt_tokens == sum(case["tokens"] for case in cases)
    for one, case in zip(answer.data, cases, strict=True):
        theirs = np.array(case["mean"])
        assert np.array(one.embedding) @ theirs / np.linalg.norm(one.embedding) / np.linalg.norm(theirs) > 0.9999
    plain = server.ask("POST", "/v1/embeddings", {"model": "vectors", "input": texts[0], "dimensions": 7}).json
    assert plain["data"][0]["embedding"] == pytest.approx(answer.data[0].embedding[:7], abs=1e-5)
    long = server.ask("POST", "/v1/embeddings", {"model": "vectors", "input": ["a" * 600]})
    assert (long.status, long.error["code"]) == (400, "context_length_exceeded")
    assert long.error["ingle"] == {"prompt_tokens": 602, "context_window": 528}
    cut = server.ask("POST", "/v1/embeddings", {"model": "vectors", "input": ["a", "a" * 600], "truncate": True}).json
    assert (cut["ingle"], cut["usage"]["prompt_tokens"]) == ({"truncated": {"1": 74}}, 3 + 528)


def vectors_of(server: Served, given: Any, **fields: Any) -> list[Any]:
    answer = server.ask("POST", "/v1/embeddings", {"model": "vectors", "input": given, **fields})
    assert answer.status == 200, answer.body
    return [one["embedding"] for one in answer.json["data"]]


def test_embeddings_of_token_ids_and_of_llama_cpps_objects(server: Served) -> None:
    texts = ["What a lovely day", "ab"]
    ids = [server.ask("POST", "/tokenize", {"model": "vectors", "content": text, "add_special": True}).json["tokens"]
           for text in texts]  # fmt: skip
    first, second = vectors_of(server, texts)
    assert vectors_of(server, ids[0]) == [pytest.approx(first, abs=1e-4)]
    assert vectors_of(server, ids) == [pytest.approx(first, abs=1e-4), pytest.approx(second, abs=1e-5)]
    begin, *_, end = ids[1]
    assert vectors_of(server, [begin, "a", "b", end]) == [pytest.approx(second, abs=1e-4)]
    parts = {"content": [{"type": "text", "text": "What a "}, {"type": "text", "text": "lovely day"}]}
    mixed = vectors_of(server, [{"prompt_string": "ab"}, parts, ids[1]])
    assert mixed == [pytest.approx(one, abs=1e-4) for one in (second, first, second)]
    answer = server.ask("POST", "/v1/embeddings", {"model": "vectors", "input": ids}).json
    assert answer["usage"]["prompt_tokens"] == len(ids[0]) + len(ids[1])


@pytest.mark.parametrize(
    "given",
    [[], {}, [[]], [[], "a"], 5, [1, -1], [1, True], [1.5], [10**9], {"content": "text"}, {"content": []},
     {"content": [{"type": "image_url"}]}, {"prompt_string": "a", "multimodal_data": ["x"]}],
)  # fmt: skip
def test_what_cannot_be_embedded_is_refused_by_name(server: Served, given: Any) -> None:
    for path in ("/v1/embeddings", "/embeddings"):
        answer = server.ask("POST", path, {"model": "vectors", "input": given})
        assert (answer.status, answer.error["param"]) == (400, "input"), answer.body


def test_a_prompt_of_the_model_is_not_put_before_token_ids(server: Served) -> None:
    body = {"model": "vectors", "input": [5, 6], "prompt_name": "query"}
    answer = server.ask("POST", "/v1/embeddings", body)
    assert (answer.status, answer.error["param"]) == (400, "prompt"), answer.body


def test_embeddings_as_llama_cpp_has_them(server: Served) -> None:
    case = golden("vectors")[0]
    body = {"model": "vectors", "content": case["input"]}
    (pooled,) = server.ask("POST", "/embedding", body).json
    unit = np.array(case["mean"]) / np.linalg.norm(case["mean"])
    assert (pooled["index"], pooled["embedding"]) == (0, [pytest.approx(unit, abs=1e-4)])
    (tokens,) = server.ask("POST", "/embeddings", body | {"pooling": "none"}).json
    assert np.shape(tokens["embedding"]) == (case["tokens"], len(unit))
    assert np.mean(tokens["embedding"], axis=0) == pytest.approx(np.array(case["mean"]), abs=1e-3)
    assert np.linalg.norm(tokens["embedding"], axis=1) != pytest.approx(1)
    (first,) = server.ask("POST", "/embeddings", body | {"pooling": "cls", "embd_normalize": -1}).json
    assert first["embedding"][0] == pytest.approx(tokens["embedding"][0], abs=1e-5)
    unit = np.array(pooled["embedding"][0])
    assert vectors_of(server, case["input"], pooling="mean") == [pytest.approx(unit, abs=1e-5)]
    for how, expected in ((1, np.abs(unit).sum()), (0, np.abs(unit).max() / 32760)):
        (scaled,) = server.ask("POST", "/embeddings", body | {"embd_normalize": how}).json
        assert scaled["embedding"][0] == pytest.approx(unit / expected, rel=1e-5)
    for path, more in (("/v1/embeddings", {}), ("/embeddings", {"embd_normalize": 2})):
        refused = server.ask("POST", path, {"model": "vectors", "input": "a", "pooling": "none", **more})
        assert refused.status == 400, refused.body


def test_tokens_of_a_model_for_tasks(server: Served) -> None:
    for name in ("vectors", "t5"):
        asked = {"model": name, "content": "a day", "add_special": True, "with_pieces": True}
        there = server.ask("POST", "/tokenize", asked).json["tokens"]
        ids = [token["id"] for token in there]
        bare = server.ask("POST", "/tokenize", {"model": name, "content": "a day"}).json["tokens"]
        assert len(bare) < len(ids) and str(bare)[1:-1] in str(ids)
        assert "a day" in server.ask("POST", "/detokenize", {"model": name, "tokens": bare}).json["content"]
        text = server.ask("POST", "/tokenize", {"model": name, "content": there[-1]["piece"]}).json["tokens"]
        as_text = {"model": name, "content": there[-1]["piece"], "parse_special": False}
        assert text == [ids[-1]] and len(server.ask("POST", "/tokenize", as_text).json["tokens"]) > 1
        refused = server.ask("POST", "/detokenize", {"model": name, "tokens": [10**8]})
        assert (refused.status, refused.error["param"]) == (400, "tokens"), refused.body


def test_reranking_as_cohere_and_as_tei(server: Served) -> None:
    case = golden("rank")[0]
    scores = 1 / (1 + np.exp(-np.array(case["logits"])))
    body = {"model": "rank", "query": case["query"], "documents": case["documents"], "top_n": 3}
    answer = server.ask("POST", "/v1/rerank", body).json
    results = answer["results"]
    assert server.ask("POST", "/rerank", body).json == answer
    whole = server.ask("POST", "/v1/rerank", body | {"top_n": None}).json
    assert answer["usage"] == whole["usage"]  # all were read
    texts = len(case["query"]) * len(case["documents"]) + sum(map(len, case["documents"]))  # a token is a byte
    assert whole["usage"]["total_tokens"] > texts
    assert [one["relevance_score"] for one in results] == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-3)
    assert [one["document"]["text"] for one in results] == [case["documents"][one["index"]] for one in results]
    body = {"model": "rank", "query": case["query"], "texts": case["documents"], "raw_scores": True}
    results = server.ask("POST", "/rerank", body).json
    assert [one["score"] for one in results] == pytest.approx(sorted(case["logits"], reverse=True), abs=5e-3)
    assert len(server.ask("POST", "/rerank", body | {"top_n": 2}).json) == 2
    for wrong in ({"documents": ["a"]}, {"texts": None}, {"return_documents": True}):
        assert server.ask("POST", "/rerank", body | wrong).status == 400


def test_classifying_as_vllm_and_as_tei(server: Served) -> None:
    cases = golden("labels")["text-classification"]
    case, pair = cases[0], cases[-1]
    found = server.ask("POST", "/v1/classify", {"model": "labels", "input": [case["input"]]}).json["data"][0]
    assert found["label"] == case["labels"][0]["label"]
    assert found["probs"] == pytest.approx([one["score"] for one in case["labels"]], abs=1e-3)
    both = [[case["input"]], [pair["input"]["text"], pair["input"]["text_pair"]]]
    found = server.ask("POST", "/predict", {"model": "labels", "inputs": both}).json
    for ours, theirs in zip(found, (case, pair), strict=True):
        assert [one["label"] for one in ours] == [one["label"] for one in theirs["labels"]]
    alone = server.ask("POST", "/predict", {"model": "labels", "inputs": case["input"]}).json
    assert [one["score"] for one in alone] == pytest.approx([one["score"] for one in found[0]], abs=1e-5)


def test_a_judge_is_told_what_the_query_is_for(server: Served) -> None:
    plain, told = judges.recipe("tied")["golden"]
    for case in (plain, told):
        body = {"model": "judge", "query": case["query"], "documents": case["documents"]}
        body |= {"instruction": case["instruction"]} if case["instruction"] else {}
        answer = server.ask("POST", "/v1/rerank", body)
        assert answer.status == 200, answer.body
        scores = {one["index"]: one["relevance_score"] for one in answer.json["results"]}
        theirs = 1 / (1 + np.exp(-np.array(case["logits"])))
        assert [scores[index] for index in range(len(scores))] == pytest.approx(list(theirs), abs=1e-3)
    refused = server.ask("POST", "/v1/rerank", {"model": "rank", "query": "x", "documents": ["y"], "instruction": "z"})
    assert (refused.status, "no instruction" in refused.error["message"]) == (400, True)


def test_embedding_as_tei(server: Served) -> None:
    found = server.ask("POST", "/embed", {"model": "vectors", "inputs": "compare", "prompt_name": "query"}).json
    plain = server.ask("POST", "/embed", {"model": "vectors", "inputs": ["Shall I compare"]}).json
    assert found[0] == pytest.approx(plain[0], abs=1e-6)
    assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/tasks/fill-mask", {"model": "labels", "input": "x"}, "it can do text-classification, zero-shot-"),
        ("/v1/tasks/fly", {"model": "labels", "input": "x"}, "there is no task 'fly'"),
        ("/v1/tasks/fly", {"model": "fake", "input": "x"}, "there is no task 'fly'"),
        ("/v1/tasks/summarization", {"model": "labels", "input": "x"}, "cannot do summarization: it reads texts"),
        ("/v1/tasks/fill-mask", {"model": "t5", "input": "x"}, "it can do text2text-generation"),
        ("/v1/tasks/fill-mask", {"model": "masks", "input": "x"}, "there is no <mask> in 'x'"),
        ("/v1/tasks/fill-mask", {"model": "masks", "input": "x", "parameters": {"top_p": 1}}, "has no parameter"),
        ("/v1/tasks/fill-mask", {"model": "masks", "input": "x", "parameters": {"name": 1}}, "has no parameter 'name'"),
        ("/v1/tasks/fill-mask", {"model": "masks", "input": ["<mask>"], "parameters": {"top_k": "3"}}, "must be int"),
        ("/v1/tasks/question-answering", {"model": "labels", "input": {"question": "?"}}, "cannot do question-a"),
        ("/v1/tasks/zero-shot-classification", {"model": "labels", "input": "x"}, "needs candidate_labels"),
        ("/v1/rerank", {"model": "labels", "query": "x", "documents": ["y"]}, "one output (a cross-encoder)"),
        ("/v1/rerank", {"model": "rank", "query": "x", "documents": []}, "documents"),
        ("/v1/embeddings", {"model": "fake", "input": "x"}, "fake cannot do embeddings: it continues texts"),
        ("/v1/embeddings", {"model": "rank", "input": "x"}, "needs a model for embeddings"),
        ("/embed", {"inputs": "x"}, "model is missing"),
        ("/predict", {"model": "labels", "inputs": [["a", "b", "c"]]}, "a pair of texts"),
        ("/v1/chat/completions", {"model": "rank", "messages": [{"role": "user", "content": "x"}]}, "continue texts"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(server: Served, path: str, body: dict[str, Any], words: str) -> None:
    answer = server.ask("POST", path, body)
    assert answer.status == 400, answer.body
    assert words in answer.error["message"]


def test_models_for_tasks_are_listed_with_the_others(server: Served) -> None:
    server.ask("POST", "/v1/classify", {"model": "labels", "input": "x"})
    found = server.ask("GET", "/v1/models/labels").json["ingle"]
    assert (found["loaded"], found["architecture"], found["context_length"]) == (True, "bert", 528)
    assert b'ingle_engine_requests_total{model="labels"} 0.0' in server.ask("GET", "/metrics").body


def test_a_process_that_dies_is_an_error_and_another_takes_its_place(server: Served) -> None:
    body = {"model": "rank", "query": "x", "texts": ["y"]}
    first = server.ask("POST", "/rerank", body)
    catalog = server.catalog
    assert isinstance(catalog, TaskCatalog)
    process = catalog.processes["rank"]
    process._process.kill()
    with pytest.raises(EngineCrashed, match="SIGKILL"):
        process.task("rerank", {"query": "x", "documents": ["y"]})
    assert not process.alive
    again = server.ask("POST", "/rerank", body)
    assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert catalog.processes["rank"] is not process


def test_a_file_that_cannot_be_loaded_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadGGUF, match=r"x\.gguf"):
        TaskProcess(tmp_path / "x.gguf")


def test_a_model_for_tasks_takes_no_adapter_and_no_projector(tmp_path: Path) -> None:
    tasked.write(tmp_path / "checkpoint", tasked.recipe("bert_labels"))
    path = convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path
    catalog = StoreCatalog(Store(tmp_path / "home"), LoadOptions(adapters=(AdapterFile("a.gguf"),)))
    plain = Installed("m", str(path), 1, 1)
    for given in (replace(plain, adapters=()), replace(plain, mmproj="p.gguf")):
        with pytest.raises(UnsupportedModel, match="takes no LoRA adapters, no projector"):
            catalog.load(given)
    model = catalog.load(plain)
    assert isinstance(model, TaskProcess)
    assert model.adapted() is model
    model.close()
