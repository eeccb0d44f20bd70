"""GLM-4.5 and 4.6: sigmoid-routed experts with a bias after the first dense layers, shared ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import glm4
from .family import SIGMOID, expert_metadata, refuse_values, shape_metadata
from .qwen2 import BIASED

NORMS: names.Names = {
    names.LAYER + "input_layernorm": "blk.{}.attn_norm",
    names.LAYER + "post_attention_layernorm": "blk.{}.post_attention_norm",
}
SHARED: names.Names = names.renamed(names.SHARED_EXPERT, "shared_expert", "shared_experts")
CHOICE: names.Names = {names.LAYER + "mlp.gate.e_score_correction_bias": "blk.{}.exp_probs_b.bias"}
PREDICTION = "multi-token prediction, which decoding does not use"


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inner size of all shared experts together."""
    shared, size = values.get("n_shared_experts"), values.get("moe_intermediate_size")
    known = isinstance(shared, int) and isinstance(size, int)
    return {"shared_expert_intermediate_size": shared * size if known and shared and size else 0}


def first_sparse(config: Config) -> int:
    return int(config.get("first_k_dense_replace", 1))


def mlps(config: Config, experts: names.Names) -> names.Names:
    """Dense layers, then sparse ones."""
    first = first_sparse(config)
    return {
        **names.in_layers(names.weights(names.GATED_MLP), range(first)),
        **names.in_layers(experts, range(first, config.num_layers)),
    }


def tensors(config: Config) -> names.Names:
    plain = (names.EMBEDDING, names.FINAL_NORM, NORMS, names.ATTENTION)
    heads = (names.QUERY_KEY_NORMS,) if config.flag("use_qk_norm") else ()
    biases = names.biases(BIASED) if config.flag("attention_bias") else {}
    experts = {**names.weights(names.EXPERTS, SHARED), **CHOICE}
    return {**names.weights(*plain, *heads), **biases, **mlps(config, experts)}


def sigmoid_experts(config: Config) -> dict[str, Value]:
    """The keys of experts that a sigmoid chooses."""
    return {
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
        "expert_shared_count": config.count("n_shared_experts", 1 << 10),
        "expert_weights_scale": config.number("routed_scaling_factor"),
        "expert_weights_norm": config.flag("norm_topk_prob"),
        "expert_gating_func": SIGMOID,
        "leading_dense_block_count": first_sparse(config),
    }


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), "rope.dimension_count": config.rotary_size, **sigmoid_experts(config)}


def ungrouped(config: Config) -> Iterator[Item]:
    """llama.cpp chooses among all experts here, not among groups of them."""
    yield from refuse_values(config, n_group=1, topk_group=1)


FAMILY = replace(
    glm4.FAMILY,
    arch="glm4moe",
    classes=("Glm4MoeForCausalLM",),
    model_types=("glm4_moe",),
    defaults={
        **glm4.FAMILY.defaults, "rms_norm_eps": 1e-5, "n_shared_experts": 1, "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    shapes=lambda config: {},
    limits=ungrouped,
    # A checkpoint's prediction layers follow its last one.
    surplus_layers=PREDICTION,
)  # fmt: skip
