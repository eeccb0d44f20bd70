"""gpt-oss: experts with biases and a clamped activation, a sink per head, windows on every other layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import names
from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, columns, gather, transpose
from . import qwen2
from .family import ROPE_TYPES, Transform, expert_metadata, refuse_values, shape_metadata, window_pattern

EXPERTS = names.LAYER + "mlp.experts."
ATTENTION: names.Names = {**names.ATTENTION, names.LAYER + "mlp.router": "blk.{}.ffn_gate_inp"}
NORMS: names.Names = {
    names.LAYER + "input_layernorm": "blk.{}.attn_norm",
    names.LAYER + "post_attention_layernorm": "blk.{}.post_attention_norm",
}
FUSED: names.Names = {
    EXPERTS + "gate_up_proj": ("blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up_exps.weight"),
    EXPERTS + "gate_up_proj_bias": ("blk.{}.ffn_gate_exps.bias", "blk.{}.ffn_up_exps.bias"),
    EXPERTS + "down_proj": "blk.{}.ffn_down_exps.weight",
    EXPERTS + "down_proj_bias": "blk.{}.ffn_down_exps.bias",
    names.LAYER + "self_attn.sinks": "blk.{}.attn_sinks.weight",
}


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The experts' inner size is the model's; yarn that is not rounded is a matter for a warning, see ``limits``."""
    found: dict[str, Any] = {"moe_intermediate_size": values.get("intermediate_size")}
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(values.get(key), dict) and values[key].get("truncate") is False:
            found |= {key: {**values[key], "truncate": True}, "rope_untruncated": True}
    return found


def tensors(config: Config) -> names.Names:
    plain = names.weights(names.EMBEDDING, names.FINAL_NORM, NORMS, ATTENTION)
    return {**plain, **names.biases(ATTENTION), **FUSED}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **shape_metadata(config),
        **expert_metadata(config),
        **window_pattern(config, period=2),
        "expert_feed_forward_length": config.expert_size,
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
    }


def part(config: Config, place: int) -> Transform:
    """The gate (0) or up (1) rows of all experts, which alternate."""
    source = np.arange(config.num_experts * config.expert_size * 2)[place::2]
    shape = (config.num_experts, config.expert_size, config.hidden_size)

    def take(rows: Rows) -> Rows:
        return gather(transpose(rows), source, shape)

    return take


def transforms(config: Config) -> dict[str, Transform]:
    every = np.arange(2 * config.expert_size)
    return {
        r".*\.ffn_gate_exps\.weight": part(config, 0),
        r".*\.ffn_up_exps\.weight": part(config, 1),
        r".*\.ffn_gate_exps\.bias": lambda rows: columns(rows, every[0::2]),
        r".*\.ffn_up_exps\.bias": lambda rows: columns(rows, every[1::2]),
        r".*\.ffn_down_exps\.weight": transpose,
    }


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"attn_sinks": (config.num_heads,)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_values(config, attention_bias=True, swiglu_limit=7.0, swiglu_alpha=1.702)
    if config.flag("rope_untruncated"):
        yield Item(
            "rope",
            "warn",
            "yarn with truncate false: llama.cpp rounds the correction range, which changes the angles a little",
        )


FAMILY = replace(
    qwen2.FAMILY,
    arch="gpt-oss",
    classes=("GptOssForCausalLM",),
    model_types=("gpt_oss",),
    defaults={**qwen2.FAMILY.defaults, "head_dim": 64, "attention_bias": True, "sliding_window": 128},
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    rope_types=ROPE_TYPES - {"linear"},
    square=False,
    tied_head=False,
)
