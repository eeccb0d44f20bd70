"""``ingle classify`` and ``ingle embed``, from a checkpoint folder to what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import encoders
import numpy as np
import pytest
from ingle.convert import convert
from shell import finished

TEXT = "Shall I compare thee to a summer's day?"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    encoders.write(folder / "checkpoint", encoders.recipe("roberta_classifier"))
    return convert(folder / "checkpoint", folder / "model.gguf", "f32").path


def test_a_folder_is_converted_proven_and_classifies(tmp_path: Path) -> None:
    folder = encoders.write(tmp_path / "distil", encoders.recipe("distilbert_classifier"))
    code, out, complaints = finished("classify", f"{folder}:F32", TEXT, "Rough winds!", "--json")
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
    code, out, complaints = finished("classify", path, TEXT, "Rough winds!", "--json")
    assert code == 0, complaints
    names = [recipe["config"]["id2label"][str(index)] for index in range(len(recipe["config"]["id2label"]))]
    for result, case in zip(json.loads(out), recipe["golden"], strict=True):
        logits = {entry["label"]: entry["logit"] for entry in result["labels"]}
        largest = float(np.abs(case["logits"]).max())
        assert [logits[name] for name in names] == pytest.approx(case["logits"], abs=1e-3 * max(1, largest))


def test_a_table_for_people(classifier: Path) -> None:
    code, out, _ = finished("classify", classifier, TEXT)
    lines = out.splitlines()
    assert (code, lines[0], lines[1].split()) == (0, TEXT, ["label", "score"])
    assert len(lines) == 5


def test_a_text_that_is_too_long_is_said_to_be(classifier: Path) -> None:
    code, out, complaints = finished("classify", classifier, "x" * 80)
    assert (code, out) == (2, "")
    assert "82 tokens, and this model reads 62" in complaints


def test_embeddings_as_lines_and_as_json(tmp_path: Path) -> None:
    encoders.write(tmp_path / "checkpoint", encoders.recipe("bert_sentence"))
    path = convert(tmp_path / "checkpoint", tmp_path / "model.gguf", "f32").path
    code, out, complaints = finished("embed", path, TEXT)
    assert code == 0, complaints
    assert np.array(json.loads(out)) == pytest.approx(
        encoders.recipe("bert_sentence")["golden"][0]["embedding"], abs=1e-3
    )
    code, out, _ = finished("embed", path, TEXT, "--prompt", "query", "--json")
    assert json.loads(out)[0]["text"] == TEXT
    code, _, complaints = finished("embed", path, TEXT, "--prompt", "nothing")
    assert (code, "it has query" in complaints) == (2, True)
