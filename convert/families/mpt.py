"""MPT: linear biases instead of positions, layer norms without biases, one fused projection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import names
from ..config import Config, number
from ..gguf import Value
from ..report import Item
from .family import GELU, Family, layer_norm_metadata, refuse_flags, refuse_values

LAYER = "transformer.blocks.{}."
NAMES: names.Names = {
    "transformer.wte": "token_embd",
    "transformer.norm_f": "output_norm",
    LAYER + "norm_1": "blk.{}.attn_norm",
    LAYER + "norm_2": "blk.{}.ffn_norm",
    LAYER + "attn.Wqkv": "blk.{}.attn_qkv",
    LAYER + "attn.out_proj": "blk.{}.attn_output",
    LAYER + "ffn.up_proj": "blk.{}.ffn_up",
    LAYER + "ffn.down_proj": "blk.{}.ffn_down",
}


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The attention's settings from their own object, and the inner size."""
    inner, ratio, hidden = values.get("attn_config"), values.get("expansion_ratio", 4), values.get("d_model")
    attention = inner if isinstance(inner, dict) else {}
    found = {key: attention.get(key) for key in ("alibi", "clip_qkv", "qk_ln", "softmax_scale")}
    sound = isinstance(ratio, int) and isinstance(hidden, int)
    return {
        **found,
        "alibi_bias_max": attention.get("alibi_bias_max", 8),
        "intermediate_size": ratio * hidden if sound else None,
    }


def metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {
        **layer_norm_metadata(config),
        "attention.max_alibi_bias": number(config.values, "alibi_bias_max"),
    }
    return keys if config.get("clip_qkv") is None else {**keys, "attention.clamp_kqv": config.number("clip_qkv")}


def tensors(config: Config) -> names.Names:
    return names.weights(NAMES)


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_values(config, no_bias=True, alibi=True, softmax_scale=None)
    yield from refuse_flags(config, "qk_ln")


FAMILY = Family(
    arch="mpt",
    classes=("MptForCausalLM", "MPTForCausalLM"),
    model_types=("mpt",),
    activations=GELU,
    defaults={
        "hidden_act": "gelu", "layer_norm_epsilon": 1e-5, "max_seq_len": 2048, "no_bias": True,
        "tie_word_embeddings": True,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    limits=limits,
    root="transformer.",
    embedding="transformer.wte.weight",
    square=True,
)  # fmt: skip
