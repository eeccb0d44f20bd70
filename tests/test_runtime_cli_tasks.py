"""``ingle task``, from a checkpoint folder to what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import encoders
import numpy as np
import pytest
import tasked
from ingle.convert import convert
from shell import finished
from test_runtime_seq2seq import recipe as seq2seq

TEXT = "Shall I compare thee to a summer's day?"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    encoders.write(folder / "checkpoint", encoders.recipe("roberta_classifier"))
    return convert(folder / "checkpoint", folder / "model.gguf", "f32").path


def test_a_folder_is_converted_proven_and_classifies(tmp_path: Path) -> None:
    folder = encoders.write(tmp_path / "distil", encoders.recipe("distilbert_classifier"))
    code, out, complaints = finished("task", "text-classification", f"{folder}:F32", TEXT, "Rough winds!", "--json")
    assert code == 0, complaints
    results = json.loads(out)
    for result, case in zip(results, encoders.recipe("distilbert_classifier")["golden"], strict=True):
        logits = {entry["label"]: entry["logit"] for entry in result["labels"]}
        assert [logits[name] for name in ("bad", "so so", "good")] == pytest.approx(case["logits"], abs=2e-3)
        scores = [entry["score"] for entry in result["labels"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1)


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "modernbert", "roberta"])
def test_the_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Nearly all of the difference is ggml's GELU, the tanh form looked up in a table of f16."""
    recipe = encoders.recipe(f"{family}_classifier")
    encoders.write(tmp_path / "checkpoint", recipe)
    path = convert(tmp_path / "checkpoint", tmp_path / "model.gguf", "f32").path
    code, out, complaints = finished("task", "text-classification", path, TEXT, "Rough winds!", "--json")
    assert code == 0, complaints
    names = [recipe["config"]["id2label"][str(index)] for index in range(len(recipe["config"]["id2label"]))]
    for result, case in zip(json.loads(out), recipe["golden"], strict=True):
        logits = {entry["label"]: entry["logit"] for entry in result["labels"]}
        largest = float(np.abs(case["logits"]).max())
        assert [logits[name] for name in names] == pytest.approx(case["logits"], abs=1e-3 * max(1, largest))


def test_a_table_for_people(classifier: Path) -> None:
    code, out, _ = finished("task", "text-classification", classifier, TEXT)
    lines = out.splitlines()
    assert (code, lines[0], lines[1].split()) == (0, TEXT, ["label", "score"])
    assert len(lines) == 5


def test_a_text_that_is_too_long_is_said_to_be(classifier: Path) -> None:
    code, out, complaints = finished("task", "text-classification", classifier, "x" * 80)
    assert (code, out) == (2, "")
    assert "82 tokens, and this model reads 62" in complaints


def test_embeddings_as_lines_and_as_json(tmp_path: Path) -> None:
    encoders.write(tmp_path / "checkpoint", encoders.recipe("bert_sentence"))
    path = convert(tmp_path / "checkpoint", tmp_path / "model.gguf", "f32").path
    code, out, complaints = finished("task", "embeddings", path, TEXT)
    assert code == 0, complaints
    assert np.array(json.loads(out)) == pytest.approx(
        encoders.recipe("bert_sentence")["golden"][0]["embedding"], abs=1e-3
    )
    code, out, _ = finished("task", "embeddings", path, TEXT, "--prompt", "query", "--json")
    assert json.loads(out)[0]["text"] == TEXT
    code, _, complaints = finished("task", "embeddings", path, TEXT, "--prompt", "nothing")
    assert (code, "it has query" in complaints) == (2, True)


def test_a_text_is_cut_only_if_that_is_asked_for_and_it_is_said(classifier: Path) -> None:
    code, out, complaints = finished("task", "text-classification", classifier, "x" * 80, "y", "--truncate", "--json")
    assert code == 0, complaints
    first, second = json.loads(out)
    assert (first["truncated"], "truncated" in second) == (20, False)
    assert "input 0: 20 tokens were cut" in complaints
    code, out, _ = finished("task", "text-classification", classifier, "x" * 60, "--json")
    assert [entry["logit"] for entry in json.loads(out)[0]["labels"]] == pytest.approx(
        [entry["logit"] for entry in first["labels"]], abs=1e-5
    )


def test_a_task_that_does_not_fit_names_those_that_do(classifier: Path) -> None:
    code, out, complaints = finished("task", "fill-mask", classifier, TEXT)
    assert (code, out) == (2, "")
    assert "cannot do fill-mask: its head is sequence-classification" in complaints
    assert "it can do text-classification, feature-extraction" in complaints
    code, _, complaints = finished("task", "rerank", classifier, "query")
    assert (code, "needs query and documents" in complaints) == (2, True)
    code, _, complaints = finished("task", "embeddings", classifier, "-", "--pooling", "mean", text_in="x\n")
    assert (code, complaints) == (0, "")


@pytest.mark.parametrize("options", [(), ("--raw",)])
def test_a_model_that_reads_does_not_continue_texts(options: tuple[str, ...], classifier: Path) -> None:
    code, out, complaints = finished("run", classifier, *options, "Hello")
    assert (code, out) == (2, "")
    assert "does not continue text" in complaints and "ingle task" in complaints


@pytest.mark.parametrize("options", [(), ("--raw",)])
def test_a_decoder_with_another_head_does_not_continue_texts(options: tuple[str, ...], tmp_path: Path) -> None:
    folder = encoders.write(tmp_path / "checkpoint", encoders.recipe("llama_score"))
    path = convert(folder, tmp_path / "model.gguf", "f32").path
    code, out, complaints = finished("run", path, *options, "Hello")
    assert (code, out) == (2, "")
    assert "does not continue text" in complaints
    assert "it can do text-classification, feature-extraction: ingle task NAME MODEL TEXT" in complaints
    code, _, complaints = finished("measure", path, "--on", path)
    assert (code, "has another head" in complaints) == (2, True)


def test_an_answer_is_printed_while_it_is_written(tmp_path: Path) -> None:
    tasked.write(tmp_path / "checkpoint", seq2seq("t5"))
    path = convert(tmp_path / "checkpoint", tmp_path / "model.gguf", "f32").path
    settings = ("--max-new-tokens", "6", "--temperature", "2", "--seed", "4")
    code, streamed, said = finished("task", "translation", path, "x", "y", "--stream", *settings)
    assert (code, said.count("--max-new-tokens allows more")) == (0, 2)
    assert streamed == finished("task", "translation", path, "x", "y", *settings)[1]
    code, _, complaints = finished("task", "translation", path, "x", "--stream", "--json")
    assert (code, "--stream prints texts" in complaints) == (2, True)


def test_an_input_file_that_is_not_there_is_wrong_input(classifier: Path, tmp_path: Path) -> None:
    files = ("--input", tmp_path / "none.jsonl", "--output", tmp_path / "out.jsonl")
    code, _, complaints = finished("task", "text-classification", classifier, *files)
    assert code == 2
    assert "none.jsonl is not a file" in complaints
    assert list(tmp_path.glob("out*")) == []


def test_a_file_goes_on_where_it_was_interrupted(classifier: Path, tmp_path: Path) -> None:
    source, out, part = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    lines = [json.dumps(text, ensure_ascii=False) for text in ("eins", "zwei", "drei \N{PARTY POPPER}", "vier")]
    source.write_text("\n".join(lines) + "\n")
    command = ("task", "text-classification", classifier, "--input", source, "--output", out)
    code, _, complaints = finished(*command)
    assert (code, part.exists()) == (0, False), complaints
    whole = out.read_text()
    assert [json.loads(line)["index"] for line in whole.splitlines()] == [0, 1, 2, 3]
    out.unlink()
    first = whole.splitlines(keepends=True)
    part.write_text("".join(first[:2]) + first[2][:10])
    code, _, complaints = finished(*command)
    assert code == 0, complaints
    again = [json.loads(line) for line in out.read_text().splitlines()]
    for ours, before in zip(again, map(json.loads, whole.splitlines()), strict=True):
        assert (ours["index"], ours["input"]) == (before["index"], before["input"])
        scores = [entry["score"] for entry in before["labels"]]
        assert [entry["score"] for entry in ours["labels"]] == pytest.approx(scores, abs=1e-6)
    assert "went on behind 2 results" in complaints
    code, _, complaints = finished(*command)
    assert (code, "exists already" in complaints) == (2, True)
    out.rename(part)
    source.write_text("\n".join(reversed(lines)) + "\n")
    code, _, complaints = finished(*command)
    assert (code, "line 1 of" in complaints) == (2, True)
