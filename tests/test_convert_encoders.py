"""Encoders and encoder-decoders: what is in a converted file, what older saves mean, and what is refused.

That llama.cpp computes of it what transformers does is in test_convert_sweep.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from altered import CHECKPOINTS
from ingle.convert import check, convert, gguf
from ingle.convert.errors import IngleError, UnsupportedModel
from ingle.convert.families import find
from ingle.convert.vocabulary import DOCUMENT_KEY

Change = Callable[[dict[str, Any]], dict[str, Any]]


def converted(folder: Path, recipe: dict[str, Any], dtype: str = "f32") -> Path:
    encoders.write(folder / "checkpoint", recipe)
    return convert(folder / "checkpoint", folder / "model.gguf", dtype).path


def _old_bert(recipe: dict[str, Any]) -> dict[str, Any]:
    """Norms as gamma and beta, positions stored, a second decoder, next-sentence prediction: bert-base-uncased."""
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): shape
        for name, shape in recipe["tensors"].items()
    }
    hidden = recipe["config"]["hidden_size"]
    extra = {
        "cls.seq_relationship.weight": [2, hidden], "cls.seq_relationship.bias": [2],
        "bert.pooler.dense.weight": [hidden, hidden], "bert.pooler.dense.bias": [hidden],
    }  # fmt: skip
    config = {k: v for k, v in recipe["config"].items() if k not in ("tie_word_embeddings", "type_vocab_size", "dtype")}
    return {**recipe, "tensors": tensors | extra, "config": config}


def _old_modernbert(recipe: dict[str, Any]) -> dict[str, Any]:
    config = {k: v for k, v in recipe["config"].items() if k not in ("rope_parameters", "layer_types")}
    older = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
    return {**recipe, "config": config | older}


def _own_code_nomic(recipe: dict[str, Any]) -> dict[str, Any]:
    config = recipe["config"]
    own = {
        "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "n_embd": config["hidden_size"],
        "n_inner": config["intermediate_size"], "n_layer": config["num_hidden_layers"], "n_positions": 8192,
        "n_head": config["num_attention_heads"], "activation_function": "swiglu", "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "prenorm": False,
        "rotary_emb_scale_base": None, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
        "vocab_size": config["vocab_size"], "type_vocab_size": 2, "causal": False, "max_trained_positions": 2048,
    }  # fmt: skip
    return {**recipe, "config": own}


def _old_t5(recipe: dict[str, Any]) -> dict[str, Any]:
    """The embedding under its other names, too, as some saves have it."""
    config = {k: v for k, v in recipe["config"].items() if k not in ("scale_decoder_outputs", "num_decoder_layers")}
    return {**recipe, "config": config}


OLDER: dict[str, Change] = {
    "bert_masked": _old_bert, "modernbert": _old_modernbert, "nomic_bert": _own_code_nomic, "t5": _old_t5
}  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
def test_older_saves_give_the_same_tensors(name: str, tmp_path: Path) -> None:
    recipe = encoders.recipe(name)
    new = gguf.read(converted(tmp_path / "new", recipe))
    old = gguf.read(converted(tmp_path / "old", OLDER[name](recipe)))
    shared = [tensor for tensor in new.tensors if not tensor.endswith(("_norm.weight", "_norm.bias"))]
    assert set(new.tensors) <= set(old.tensors)
    assert all(np.array_equal(old.tensor(tensor), new.tensor(tensor)) for tensor in shared)
    own = [key for key in new.metadata if key.partition(".")[0] not in ("general", "ingle", "tokenizer")]
    differing = {key for key in own if str(old.metadata.get(key)) != str(new.metadata[key])}
    # Nomic's own config promises the length that it can be stretched to, and says what it was trained for.
    assert differing == ({"nomic-bert.context_length"} if name == "nomic_bert" else set())


def test_roberta_leaves_out_the_positions_of_padding(tmp_path: Path) -> None:
    file = gguf.read(converted(tmp_path, encoders.recipe("roberta")))
    assert file.metadata["bert.context_length"] == 62
    assert file.tensors["position_embd.weight"].shape == (62, 32)


def test_the_pooler_is_where_llama_cpp_looks_for_it(tmp_path: Path) -> None:
    file = gguf.read(converted(tmp_path, encoders.recipe("bert")))
    assert file.tensors["cls.weight"].shape == (32, 32)
    assert np.array_equal(file.tensor("cls.bias"), encoders.weights("bert", "pooler.dense.bias"))


def test_a_scaled_head_is_written_even_where_it_is_tied(tmp_path: Path) -> None:
    scaled = gguf.read(converted(tmp_path / "t5", encoders.recipe("t5")))
    expected = encoders.weights("t5", "shared.weight") * np.float32(32**-0.5)
    assert np.array_equal(scaled.tensor("output.weight"), expected)
    plain = gguf.read(converted(tmp_path / "mt5", encoders.recipe("mt5")))
    assert "output.weight" not in plain.tensors


def test_windows_of_an_unusual_pattern_are_written_out(tmp_path: Path) -> None:
    keys = gguf.read(converted(tmp_path / "a", encoders.recipe("modernbert_mean"))).metadata
    assert keys["modern-bert.attention.sliding_window_pattern"].tolist() == [False, True, False, True]
    keys = gguf.read(converted(tmp_path / "b", encoders.recipe("modernbert"))).metadata
    assert "modern-bert.attention.sliding_window_pattern" not in keys


def test_models_that_read_keep_their_tokenizer(tmp_path: Path) -> None:
    for name in ("roberta", "bert_tagger", "llama_score", "t5"):
        metadata = gguf.read(converted(tmp_path / name, encoders.recipe(name))).metadata
        content = json.loads((tmp_path / name / "checkpoint" / "tokenizer.json").read_text())
        assert json.loads(str(metadata[DOCUMENT_KEY])) == content, name
    writer = convert(CHECKPOINTS / "gpt2", tmp_path / "gpt2.gguf")
    assert DOCUMENT_KEY not in gguf.read(writer.path).metadata


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "relative positions": ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    "decoder": ("bert", {"is_decoder": True}, "is_decoder"),
    "activation": ("bert", {"hidden_act": "relu"}, "hidden_act"),
    "projection": ("electra", {"embedding_size": 16}, "projects its embedding"),
    "norm bias": ("modernbert", {"norm_bias": True}, "norm_bias"),
    "experts": ("nomic_bert", {"moe_every_n_layers": 2}, "moe_every_n_layers"),
    "distance": ("t5", {"relative_attention_max_distance": 64}, "relative_attention_max_distance"),
    "deep decoder": ("t5", {"num_decoder_layers": 3}, "must not be the deeper one"),
    "silu": ("t5", {"feed_forward_proj": "gated-silu"}, "gated-silu"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(case: str, tmp_path: Path) -> None:
    name, change, words = REFUSED[case]
    recipe = encoders.recipe(name)
    recipe["config"] |= change
    report = check(encoders.write(tmp_path / "checkpoint", recipe))
    assert any(words in item.detail for item in report.failures), report.failures
    with pytest.raises(IngleError):
        convert(tmp_path / "checkpoint", tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AlbertModel", "projection"), ("MPNetForMaskedLM", "relative position"), ("BartModel", "no graph"),
        ("MarianMTModel", "no graph"), ("PegasusForConditionalGeneration", "no graph"), ("MBartModel", "no graph"),
        ("DebertaV2Model", "relative positions"), ("JinaBertModel", "in its repository only"),
    ],
)  # fmt: skip
def test_architectures_without_a_graph_are_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        find({"architectures": [name]})
