"""Heads: what a converted file keeps of them, and that it computes what the checkpoint does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from conformance import plans
from ingle.convert import check, convert, gguf
from ingle.convert.errors import (
    BadGGUF,
    BadRequest,
    ContextLengthExceeded,
    IngleError,
    UnsupportedModel,
)
from ingle.convert.ggml import TYPES
from ingle.convert.gguf import TensorPlan
from ingle.runtime.tasks.encoder import Encoder
from ingle.runtime.tasks.head import Head
from llama_runs import classified

CLASSIFIERS = ("bert", "distilbert", "electra", "modernbert", "roberta")
TEXT = "Shall I compare thee to a summer's day?"


def converted(folder: Path, recipe: dict[str, Any], dtype: str = "f32") -> Path:
    encoders.write(folder / "checkpoint", recipe)
    return convert(folder / "checkpoint", folder / "model.gguf", dtype).path


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_texts_are_classified_as_by_transformers(family: str, tmp_path: Path, record_property: Any) -> None:
    recipe = encoders.recipe(f"{family}_classifier")
    case = recipe["golden"][0]
    with Encoder(converted(tmp_path, recipe), threads=1) as encoder:
        found = encoder.classify([TEXT])[0]
    difference = float(np.abs(np.array(found.logits) - case["logits"]).max())
    record_property("difference", difference)
    assert difference <= 1e-3 * max(1.0, float(np.abs(case["logits"]).max()))
    assert found.label == found.labels[int(np.argmax(case["logits"]))]


@pytest.mark.parametrize("name", ["bert_classifier", "roberta_classifier", "modernbert_classifier", "modernbert_mean"])
def test_llama_cpps_own_classifier_agrees_where_it_is_written(name: str, tmp_path: Path) -> None:
    recipe = encoders.recipe(name)
    path = converted(tmp_path, recipe)
    case = recipe["golden"][0]
    assert np.abs(classified(path, case["ids"]) - case["logits"]).max() <= 5e-3
    assert gguf.read(path).metadata[f"{gguf.read(path).metadata['general.architecture']}.pooling_type"] == 4


@pytest.mark.parametrize("name", ["distilbert_classifier", "electra_classifier", "modernbert_biased"])
def test_what_llama_cpp_would_compute_wrongly_is_not_given_to_it(name: str, tmp_path: Path) -> None:
    file = gguf.read(converted(tmp_path, encoders.recipe(name)))
    assert not {"cls.weight", "cls.output.weight"} & set(file.tensors)
    assert not any(key.endswith(("pooling_type", "output_labels")) for key in file.metadata)


# The tensors of a head as llama.cpp's own converter writes them: its tensor -> layer of the head.
THEIRS: dict[str, dict[str, str]] = {
    "bert_classifier": {"cls.output": "out"},
    "distilbert_classifier": {"cls": "dense", "cls.output": "out"},
    "electra_classifier": {"cls": "dense", "cls.output": "out"},
}


@pytest.mark.parametrize("name", THEIRS)
def test_llama_cpps_own_path_is_wrong_where_ours_is_right(name: str, tmp_path: Path) -> None:
    """It has tanh where DistilBERT has ReLU and ELECTRA GELU; BERT's pooler its converter drops."""
    recipe = encoders.recipe(name)
    path = converted(tmp_path, recipe)
    own = gguf.read(path)
    kept = [plan for plan in plans(own) if not plan.name.startswith("cls")]
    tensors = [
        stored_tensor(f"{target}.{kind}", values)
        for target, layer in THEIRS[name].items()
        for kind, values in head_layer(own, layer)
    ]
    labels = {"bert.classifier.output_labels": own.metadata["ingle.head.labels"], "bert.pooling_type": 4}
    gguf.write(tmp_path / "theirs.gguf", own.metadata | labels, [*kept, *tensors])
    with Encoder(path, threads=1) as encoder:
        for case in recipe["golden"]:
            right, wrong = encoders.both(encoder, case)[0], classified(tmp_path / "theirs.gguf", case["ids"])
            assert np.abs(right - case["logits"]).max() <= 2e-3
            assert np.abs(wrong - case["logits"]).max() > 0.05


def head_layer(file: gguf.GGUF, layer: str) -> list[tuple[str, Any]]:
    shape = file.metadata[f"ingle.head.{layer}.shape"]
    weight = file.metadata[f"ingle.head.{layer}.weight"].reshape(shape)
    return [("weight", weight), ("bias", file.metadata[f"ingle.head.{layer}.bias"])]


def stored_tensor(name: str, values: Any) -> TensorPlan:
    return TensorPlan(name, values.shape, TYPES["F32"], lambda: iter([values]))


def test_labels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    recipe = encoders.recipe("bert_classifier")
    recipe["config"]["id2label"] = dict(sorted(recipe["config"]["id2label"].items()))
    assert list(recipe["config"]["id2label"])[:3] == ["0", "1", "10"]
    keys = gguf.read(converted(tmp_path, recipe)).metadata
    expected = [f"kind {index}" for index in range(11)]
    assert keys["ingle.head.labels"] == keys["bert.classifier.output_labels"] == expected


@pytest.mark.parametrize(
    ("name", "task", "pooling"),
    [
        ("bert_choice", "multiple-choice", "first"),
        ("bert_tagger", "token-classification", "each"),
        ("bert_answers", "question-answering", "each"),
        ("bert_masked", "fill-mask", "each"),
        ("electra_replaced", "replaced-token-detection", "each"),
        ("roberta_classifier", "sequence-classification", "first"),
        ("modernbert_mean", "sequence-classification", "mean"),
        ("qwen3_score", "sequence-classification", "last"),
        ("bert_sentence", "feature-extraction", "mean"),
    ],
)
def test_the_file_says_what_the_head_is(name: str, task: str, pooling: str, tmp_path: Path) -> None:
    keys = gguf.read(converted(tmp_path, encoders.recipe(name))).metadata
    assert (keys["ingle.head.task"], keys["ingle.head.pooling"]) == (task, pooling)
    assert keys.get("ingle.head.problem_type") == encoders.recipe(name)["config"].get("problem_type")


def test_the_weights_of_a_head_are_stored_exactly(tmp_path: Path) -> None:
    keys = gguf.read(converted(tmp_path, encoders.recipe("bert_masked"), "f16")).metadata
    root = "cls.predictions"
    weight = encoders.weights("bert_masked", f"{root}.transform.dense.weight")
    assert keys["ingle.head.dense.shape"].tolist() == [32, 32]
    assert np.array_equal(keys["ingle.head.dense.weight"], weight.ravel())
    assert np.array_equal(keys["ingle.head.decoder.bias"], encoders.weights("bert_masked", f"{root}.bias"))
    assert "ingle.head.decoder.weight" not in keys, "it is the token embedding"


def test_the_first_look_reads_no_head_and_knows_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = encoders.write(tmp_path / "checkpoint", encoders.recipe("bert_classifier"))
    with monkeypatch.context() as patch:
        patch.setattr("ingle.convert.attach._read", lambda tensor: pytest.fail("a tensor was read"))
        report = check(folder)
    done = convert(folder, tmp_path / "m.gguf", "f32")
    said = int(report["size"].detail.split(", ")[1].split(" bytes")[0].replace(",", ""))
    assert 0 <= done.size_bytes - said < 32 * done.num_tensors + 400


BROKEN: dict[str, tuple[str, dict[str, Any], dict[str, list[int] | None], str]] = {
    "too few labels": ("bert_classifier", {"id2label": {"0": "a", "1": "b"}}, {}, "2 labels.*11 outputs"),
    "labels without numbers": ("bert_tagger", {"id2label": {"x": "a"}}, {}, "id2label"),
    "missing": ("bert_classifier", {}, {"classifier.weight": None}, "classifier.weight is missing"),
    "missing bias": ("bert_classifier", {}, {"classifier.bias": None}, "classifier.bias is missing"),
    "too narrow": ("bert_classifier", {}, {"classifier.weight": [11, 16]}, "follows from the layer before"),
    "too large": (
        "bert_classifier", {}, {"classifier.weight": [140_000, 32], "classifier.bias": [140_000]}, "too large"
    ),
    "activation": ("modernbert_classifier", {"classifier_activation": "swish"}, {}, "activation 'swish'"),
    "other decoder": ("bert_masked", {}, {"cls.predictions.decoder.weight": [264, 32]}, "the same values"),
    "other bias": ("bert_masked", {}, {"cls.predictions.decoder.bias": [264]}, "the same values"),
    "unknown tensor": ("bert_tagger", {}, {"classifier2.weight": [3, 32]}, "nothing maps"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_head_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    name, config, tensors, words = BROKEN[case]
    recipe = encoders.recipe(name)
    recipe["config"] |= config
    recipe["tensors"] = {k: v for k, v in {**recipe["tensors"], **tensors}.items() if v is not None}
    encoders.write(tmp_path / "checkpoint", recipe)
    with pytest.raises(IngleError, match=words):
        convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_an_untied_decoder_is_kept(tmp_path: Path) -> None:
    recipe = encoders.recipe("bert_masked")
    recipe["config"]["tie_word_embeddings"] = False
    recipe["tensors"]["cls.predictions.decoder.weight"] = [264, 32]
    keys = gguf.read(converted(tmp_path, recipe)).metadata
    expected = encoders.values("cls.predictions.decoder.weight", (264, 32), centred=False)
    assert np.array_equal(keys["ingle.head.decoder.weight"], expected.ravel())


def test_sentence_transformers_prompts_and_length(tmp_path: Path) -> None:
    path = converted(tmp_path, encoders.recipe("bert_sentence"))
    assert json.loads(str(gguf.read(path).metadata["ingle.prompts"])) == {"query": "query: ", "": ""}
    assert gguf.read(path).metadata["bert.pooling_type"] == 1
    with Encoder(path, threads=1) as encoder:
        prompted, plain = encoder.embed([TEXT], prompt="query")[0], encoder.embed(["query: " + TEXT])[0]
        assert np.array_equal(prompted, plain)
        assert np.linalg.norm(plain) == pytest.approx(1, abs=1e-6)
        with pytest.raises(BadRequest, match="no prompt 'passage'"):
            encoder.embed([TEXT], prompt="passage")
        with pytest.raises(ContextLengthExceeded, match="49 tokens, and this model reads 48"):
            encoder.embed(["x" * 47])


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_mean_sqrt_len_tokens": True}, "asks for the pooling"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "asks for"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Mish"}, "Mish"),
        ("modules.json", [{"type": "sentence_transformers.models.CLIPModel", "path": ""}], "Transformer"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "../.."}], "outside"),
        ("modules.json", {"not": "a list"}, "not an array"),
    ],
)
def test_modules_that_cannot_be_kept_are_refused(file: str, content: Any, words: str, tmp_path: Path) -> None:
    recipe = encoders.recipe("bert_sentence")
    recipe["files"][file] = content
    encoders.write(tmp_path / "checkpoint", recipe)
    with pytest.raises(IngleError, match=words):
        convert(tmp_path / "checkpoint", tmp_path / "model.gguf")


def test_a_text_that_is_too_long_is_refused_not_cut(tmp_path: Path) -> None:
    with Encoder(converted(tmp_path, encoders.recipe("roberta_classifier")), threads=1) as encoder:
        assert len(encoder.tokenize("x" * 60)) == 62
        assert encoder.classify(["x" * 60])[0].labels == ("bad", "so so", "good")
        with pytest.raises(ContextLengthExceeded, match="63 tokens, and this model reads 62"):
            encoder.classify(["x" * 61])


def test_scores_follow_the_problem_type(tmp_path: Path) -> None:
    def scores(name: str, **config: Any) -> tuple[np.ndarray, np.ndarray]:
        recipe = encoders.recipe(name)
        recipe["config"] |= config
        with Encoder(converted(tmp_path / json.dumps(config), recipe), threads=1) as encoder:
            found = encoder.classify([TEXT])[0]
        return np.array(found.logits), np.array(found.scores)

    logits, several = scores("roberta_classifier")
    assert several == pytest.approx(1 / (1 + np.exp(-logits)))
    logits, one = scores("roberta_classifier", problem_type="single_label_classification")
    assert one == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    logits, plain = scores("roberta_classifier", problem_type="regression")
    assert plain == pytest.approx(logits)


def test_a_model_without_the_head_that_is_asked_for_says_so(tmp_path: Path) -> None:
    with Encoder(converted(tmp_path, encoders.recipe("bert")), threads=1) as encoder:
        with pytest.raises(UnsupportedModel, match="cannot do text-classification: its head is none"):
            encoder.classify([TEXT])
        with pytest.raises(UnsupportedModel, match="has no head"):
            encoder.outputs(TEXT)
        with pytest.raises(BadRequest, match="does not say how"):
            encoder.embed([TEXT])
        states = encoder.states(encoder.tokenize(TEXT))
        assert encoder.embed([TEXT], pooling="mean")[0] == pytest.approx(states.mean(axis=0))
        assert encoder.embed([TEXT, "x"], pooling="first").shape == (2, 32)


def test_a_masked_word_is_filled_from_a_half_precision_file(tmp_path: Path) -> None:
    recipe = encoders.recipe("bert_masked")
    with Encoder(converted(tmp_path, recipe, "f16"), threads=1) as encoder:
        ours, theirs = encoders.both(encoder, recipe["golden"][0])
    assert np.abs(ours - theirs).max() <= 0.02 * np.abs(theirs).max()


@pytest.mark.parametrize(
    "change", [{"steps": ["linear nowhere"]}, {"steps": ["frobnicate"]}, {"pooling": "median"}, {"dense.weight": None}]
)
def test_a_malformed_head_is_a_broken_file(change: dict[str, Any], tmp_path: Path) -> None:
    keys = dict(gguf.read(converted(tmp_path, encoders.recipe("bert_classifier"))).metadata)
    keys |= {f"ingle.head.{key}": value for key, value in change.items()}
    with pytest.raises(BadGGUF, match="malformed"):
        Head.of({key: value for key, value in keys.items() if value is not None}, lambda: pytest.fail("not tied"))
