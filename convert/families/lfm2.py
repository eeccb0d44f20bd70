"""LFM2: short convolutions in most layers, attention with normalised heads in the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import squeeze
from .family import SILU, Family, Transform, refuse_flags, shape_metadata

LAYER = names.LAYER
ALWAYS: names.Names = {
    **names.EMBEDDING,
    "model.embedding_norm": "token_embd_norm",
    LAYER + "operator_norm": "blk.{}.attn_norm",
    LAYER + "ffn_norm": "blk.{}.ffn_norm",
}
MLP: names.Names = {
    LAYER + "feed_forward.w1": "blk.{}.ffn_gate",
    LAYER + "feed_forward.w3": "blk.{}.ffn_up",
    LAYER + "feed_forward.w2": "blk.{}.ffn_down",
}
CONVOLUTION: names.Names = {
    LAYER + "conv.conv": "blk.{}.shortconv.conv",
    LAYER + "conv.in_proj": "blk.{}.shortconv.in_proj",
    LAYER + "conv.out_proj": "blk.{}.shortconv.out_proj",
}
ATTENTION: names.Names = {
    **names.renamed(names.ATTENTION, "o_proj", "out_proj"),
    LAYER + "self_attn.q_layernorm": "blk.{}.attn_q_norm",
    LAYER + "self_attn.k_layernorm": "blk.{}.attn_k_norm",
}


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inner size that the model derives from the one that config.json gives, and the kinds of its layers."""
    size, layers = values.get("intermediate_size", values.get("block_ff_dim")), values.get("num_hidden_layers")
    full = values.get("full_attn_idxs")
    found: dict[str, Any] = {}
    if values.get("layer_types") is None and isinstance(full, list) and isinstance(layers, int):
        found["layer_types"] = ["full_attention" if layer in full else "conv" for layer in range(layers)]
    if type(size) is int and values.get("block_auto_adjust_ff_dim", True):
        multiple = int(values.get("block_multiple_of", 256))
        size = int(float(values.get("block_ffn_dim_multiplier") or 1.0) * int(2 * size / 3))
        size = -(-size // multiple) * multiple
    return {**found, "intermediate_size": size}


def attention_layers(config: Config) -> list[int]:
    kinds = config.get("layer_types", [])
    return [layer for layer in config.layers if layer < len(kinds) and kinds[layer] == "full_attention"]


def mixers(config: Config) -> names.Names:
    """The tensors of convolutions and attention, each in its layers."""
    full = attention_layers(config)
    short = [layer for layer in config.layers if layer not in full]
    return {
        **names.in_layers(names.weights(CONVOLUTION), short),
        **names.in_layers(names.weights(ATTENTION), full),
    }


def tensors(config: Config) -> names.Names:
    return {**names.weights(ALWAYS, MLP), **mixers(config)}


def metadata(config: Config) -> dict[str, Value]:
    full = attention_layers(config)
    return {
        **shape_metadata(config),
        "attention.head_count_kv": np.array(
            [config.num_kv_heads if layer in full else 0 for layer in config.layers], np.int32
        ),
        "vocab_size": config.vocab_size,
        "shortconv.l_cache": config.count("conv_L_cache", 1 << 10),
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*\.shortconv\.conv\.weight": squeeze}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    return {
        "token_embd_norm": (hidden,),
        "shortconv.conv": (hidden, config.count("conv_L_cache", 1 << 10)),
        "shortconv.in_proj": (3 * hidden, hidden),
        "shortconv.out_proj": (hidden, hidden),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "conv_bias")


FAMILY = Family(
    arch="lfm2",
    classes=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    model_types=("lfm2",),
    activations=("", *SILU),
    defaults={"norm_eps": 1e-5, "rope_theta": 1_000_000.0, "conv_L_cache": 3, "tie_word_embeddings": True},
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    square=True,
)
