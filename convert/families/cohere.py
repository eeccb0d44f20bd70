"""Command R: one layer norm per layer, attention and MLP side by side, a scaled and always tied head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from .family import SILU, Family, layer_norm_metadata, refuse_flags, unsupported

# llama.cpp expects head norms from this many layers on, and none before.
LAYERS_WITH_HEAD_NORMS = 64


def tensors(config: Config) -> names.Names:
    heads = names.QUERY_KEY_NORMS if config.flag("use_qk_norm") else {}
    return names.weights(names.without(names.LLAMA, "ffn_norm"), heads)


def metadata(config: Config) -> dict[str, Value]:
    return {
        **layer_norm_metadata(config),
        **rope.metadata(config.rope),
        "logit_scale": config.number("logit_scale"),
        "rope.scaling.type": "none",
    }


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The first Command R models tell the length they were trained for here, and a shorter one as positions."""
    return {"max_position_embeddings": values.get("model_max_length") or values.get("max_position_embeddings")}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {
        "attn_q_norm": (config.num_heads, config.head_dim),
        "attn_k_norm": (config.num_kv_heads, config.head_dim),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    if not config.tied:
        yield unsupported("tie_word_embeddings", False)
    if config.flag("use_qk_norm") != (config.num_layers >= LAYERS_WITH_HEAD_NORMS):
        yield unsupported("use_qk_norm", config.flag("use_qk_norm"))


FAMILY = Family(
    arch="command-r",
    classes=("CohereForCausalLM",),
    model_types=("cohere",),
    activations=SILU,
    defaults={
        "hidden_act": "silu", "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "max_position_embeddings": 8192,
        "rope_theta": 10_000.0, "tie_word_embeddings": True,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    shapes=shapes,
    limits=limits,
    rope_types=frozenset({"default"}),
    square=True,
)  # fmt: skip
