"""PEFT adapter folders: what is read of them, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import adapting
import numpy as np
import pytest
from adapting import CHECKPOINTS, QUERY, pair
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import peft
from ingle.convert.adapter import check_adapter, convert_adapter
from ingle.convert.errors import BadCheckpoint, UnsupportedModel

BASE = CHECKPOINTS / "llama"

# ---- the folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"peft_type": "IA3"}, "type IA3"),
        ({"peft_type": None}, "type None"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "biases"),
        ({"trainable_token_indices": [1, 2]}, "token embeddings"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [5]}, "invocation tokens"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"something_of_next_year": 1}, "something_of_next_year"),
    ],
)
def test_what_is_more_than_low_rank_pairs_is_refused_by_name(
    config: dict[str, Any], names: str, tmp_path: Path
) -> None:
    folder = adapting.simple(tmp_path / "adapter", **config)
    with pytest.raises(UnsupportedModel, match=names):
        convert_adapter(folder, BASE, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()
    assert names in check_adapter(folder, BASE)["adapter"].detail


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_ways_to_begin_that_leave_the_base_alone_are_no_obstacle(start: Any, tmp_path: Path) -> None:
    assert peft.read(adapting.simple(tmp_path, init_lora_weights=start)).ranks == [2]


@pytest.mark.parametrize(
    ("extra", "error", "names"),
    [
        ({f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(32)}, UnsupportedModel, "lora_magnitude_vector"),
        ({"base_model.model.score.weight": np.ones((2, 32))}, UnsupportedModel, "score.weight"),
        ({"base_model.model.model.norm.lora_A.weight": np.ones((2, 32))}, BadCheckpoint, "model.norm has A of a pair"),
        ({f"base_model.model.{QUERY}.lora_A.default.weight": np.ones((2, 32))}, BadCheckpoint, "twice"),
    ],
)
def test_a_tensor_that_is_no_half_of_a_pair_is_refused(
    extra: dict[str, np.ndarray], error: type[Exception], names: str, tmp_path: Path
) -> None:
    adapting.simple(tmp_path)
    a, b = pair(32, 32)
    own = {f"base_model.model.{QUERY}.lora_A.weight": a, f"base_model.model.{QUERY}.lora_B.weight": b}
    adapting.write_tensors(tmp_path / "adapter_model.safetensors", own | extra)
    with pytest.raises(error, match=re.escape(names)):
        peft.read(tmp_path)


def test_a_folder_without_pairs_or_weights_is_refused(tmp_path: Path) -> None:
    adapting.write(tmp_path, {})
    with pytest.raises(BadCheckpoint, match="no pair"):
        peft.read(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"neither adapter_model\.safetensors nor"):
        peft.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"r": 3}, "the rank 3"),
        ({"r": 0}, "the rank 0"),
        ({"r": 2.5}, "the rank 2.5"),
        ({"r": "2"}, "a rank must be a number"),
        ({"lora_alpha": True}, "lora_alpha must be a number"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is not an object"),
        ({"rank_pattern": {"q_proj": 4}}, "the rank 4"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(config: dict[str, Any], names: str, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=re.escape(names)):
        peft.read(adapting.simple(tmp_path, **config))


# ---- patterns --------------------------------------------------------------------------------------------------


def peft_key(keys: list[str], module: str) -> str | None:
    """How PEFT (0.21) looks a module up in rank_pattern: the first of the keys that this matches."""
    return next((key for key in keys if re.match(rf"(.*\.)?({key})$", module)), None)


PARTS = st.sampled_from(["model", "layers", "0", "1", "10", "self_attn", "attn", "q_proj", "v_proj", "proj"])
MODULE = st.lists(PARTS, min_size=1, max_size=5).map(".".join)
STEP = st.one_of(PARTS, st.sampled_from([r"\d+", r"\.", ".*", "[01]", "(q_proj|v_proj)", "^model", ".", r"\w"]))
KEYS = st.lists(st.lists(STEP, min_size=1, max_size=4).map(".".join) | MODULE, max_size=4, unique=True)


@given(module=MODULE, keys=KEYS, rslora=st.booleans())
def test_patterns_choose_rank_and_alpha_as_peft_does(module: str, keys: list[str], rslora: bool) -> None:
    ranks = {key: 3 + place for place, key in enumerate(keys)}
    alphas = {key: 20 + place for place, key in enumerate(reversed(keys))}
    config = {"r": 2, "lora_alpha": 16, "rank_pattern": ranks, "alpha_pattern": alphas, "use_rslora": rslora}
    rank = ranks.get(peft_key(list(ranks), module) or "", 2)
    alpha = alphas.get(peft_key(list(alphas), module) or "", 16)
    assert peft.scale_of(module, config) == (rank, alpha / (rank**0.5 if rslora else rank))


@pytest.mark.parametrize("key", ["(a+)+$", "(.*)*", "(?:x)", "a{1,9}", ".*.*.*.*.*.*x", "(?P<n>x)", "[a-", "(ab"])
def test_a_pattern_that_could_take_long_or_is_broken_is_refused(key: str) -> None:
    with pytest.raises((UnsupportedModel, BadCheckpoint), match="pattern"):
        peft.scale_of("model.layers.0.mlp", {"rank_pattern": {key: 4}})
