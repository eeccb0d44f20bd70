"""Qwen3-Next: gated delta rule in most layers, gated attention in the others, experts in all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .. import names
from ..config import MAX_LAYERS, Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, add_one, negative_exp, regroup, squeeze
from . import qwen2_moe, qwen3_moe
from .family import CAUSAL_DROPPED, Transform, expert_metadata, refuse_flags, shape_metadata, unsupported

LINEAR = names.LAYER + "linear_attn."
NORMS: names.Names = {
    names.LAYER + "input_layernorm": "blk.{}.attn_norm",
    names.LAYER + "post_attention_layernorm": "blk.{}.post_attention_norm",
}
STATE: names.Names = {
    LINEAR + "A_log": "blk.{}.ssm_a",
    LINEAR + "dt_bias": "blk.{}.ssm_dt.bias",
    **names.weights(
        {
            LINEAR + "conv1d": "blk.{}.ssm_conv1d",
            LINEAR + "norm": "blk.{}.ssm_norm",
            LINEAR + "out_proj": "blk.{}.ssm_out",
        }
    ),
}
FUSED: names.Names = {
    LINEAR + "in_proj_qkvz": ("blk.{}.attn_qkv", "blk.{}.attn_gate"),
    LINEAR + "in_proj_ba": "blk.{}.ssm_ba",
}
ATTENTION: names.Names = {**names.ATTENTION, **names.QUERY_KEY_NORMS}
EXPERTS: names.Names = {**names.EXPERTS, **names.SHARED_EXPERT, **qwen2_moe.SHARED_GATE}
PREDICTION = {**CAUSAL_DROPPED, r"(model\.)?mtp\..*": "multi-token prediction, which decoding does not use"}
FULL_EVERY = 4


def recurrent(config: Config) -> list[bool]:
    """For each layer, whether it has a state instead of attention."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == config.num_layers:
        return [kind == "linear_attention" for kind in kinds]
    period = config.count("full_attention_interval", MAX_LAYERS, FULL_EVERY)
    return [(layer + 1) % period != 0 for layer in config.layers]


def mixers(config: Config, inputs: names.Names) -> names.Names:
    """The tensors of states, which have these ``inputs``, and of attention, each in its layers."""
    states = recurrent(config)
    return {
        **names.in_layers({**names.weights(inputs), **STATE}, [n for n in config.layers if states[n]]),
        **names.in_layers(names.weights(ATTENTION), [n for n in config.layers if not states[n]]),
    }


def tensors(config: Config) -> names.Names:
    plain = names.weights(names.EMBEDDING, names.FINAL_NORM, NORMS, EXPERTS)
    return {**plain, **mixers(config, FUSED)}


def heads(config: Config) -> tuple[int, int, int, int]:
    """The number of key and of value heads of a state, and the sizes of both."""
    keys, values = (config.count(f"linear_num_{kind}_heads", 1 << 10) for kind in ("key", "value"))
    key, value = (config.count(f"linear_{kind}_head_dim", 1 << 14) for kind in ("key", "value"))
    return keys, values, key, value


def state_metadata(config: Config) -> dict[str, Value]:
    num_keys, num_values, key, value = heads(config)
    return {
        "ssm.conv_kernel": config.count("linear_conv_kernel_dim", 1 << 10),
        "ssm.state_size": key,
        "ssm.group_count": num_keys,
        "ssm.time_step_rank": num_values,
        "ssm.inner_size": num_values * value,
        "attention.recurrent_layers": np.array(recurrent(config)),
        "full_attention_interval": config.count("full_attention_interval", MAX_LAYERS, FULL_EVERY),
        "rope.dimension_count": config.rotary_size,
    }


def expert_keys(config: Config) -> dict[str, Value]:
    return {
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
        "expert_shared_feed_forward_length": config.shared_size,
    }


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), **expert_keys(config), **state_metadata(config)}


def norms_and_state(config: Config) -> dict[str, Transform]:
    return {
        r"(.*\.(attn_norm|post_attention_norm|attn_q_norm|attn_k_norm)|output_norm)\.weight": add_one,
        r".*\.ssm_a": negative_exp,
        r".*\.ssm_conv1d\.weight": squeeze,
        r".*\.ffn_gate_inp_shexp\.weight": squeeze,
    }


def transforms(config: Config) -> dict[str, Transform]:
    num_keys, num_values, key, value = heads(config)
    shared = num_values // num_keys * value
    sizes = (key, key, shared, shared)

    def projections(rows: Rows) -> Rows:
        return regroup(rows, sizes, num_keys, 0, 1, 2)

    def gate(rows: Rows) -> Rows:
        return regroup(rows, sizes, num_keys, 3)

    return {**norms_and_state(config), r".*\.attn_qkv\.weight": projections, r".*\.attn_gate\.weight": gate}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    num_keys, num_values, key, value = heads(config)
    hidden, mixed = config.hidden_size, 2 * num_keys * key + num_values * value
    return {
        "attn_q": (2 * config.num_heads * config.head_dim, hidden),
        "attn_qkv": (mixed, hidden),
        "attn_gate": (num_values * value, hidden),
        "ssm_ba": (2 * num_values, hidden),
        "ssm_alpha": (num_values, hidden),
        "ssm_beta": (num_values, hidden),
        "ssm_a": (num_values,),
        "ssm_dt": (num_values,),
        "ssm_conv1d": (mixed, config.count("linear_conv_kernel_dim", 1 << 10)),
        "ssm_norm": (value,),
        "ssm_out": (hidden, num_values * value),
        "ffn_gate_inp_shexp": (hidden,),
    }


def square_state(config: Config) -> Iterator[Item]:
    """llama.cpp's kernel wants a state of equal sides."""
    if config.get("linear_key_head_dim") != config.get("linear_value_head_dim"):
        yield unsupported("linear_value_head_dim", config.get("linear_value_head_dim"))


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    yield from square_state(config)
    yield from qwen2_moe.sparse_everywhere(config)
    if not config.get("norm_topk_prob", True):
        yield unsupported("norm_topk_prob", False)


FAMILY = replace(
    qwen3_moe.FAMILY,
    arch="qwen3next",
    classes=("Qwen3NextForCausalLM",),
    model_types=("qwen3_next",),
    defaults={
        **qwen3_moe.FAMILY.defaults, "head_dim": 256, "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4,
        "norm_topk_prob": True,
    },
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    dropped=PREDICTION,
    limits=limits,
    partial_rotary=True,
)  # fmt: skip
