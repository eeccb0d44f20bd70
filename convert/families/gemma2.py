"""Gemma 2: norms before and after each half of a layer, soft-capped logits, a window on every other layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import MAX_CONTEXT, Config, number
from ..gguf import Value
from ..report import Item
from . import gemma
from .family import shape_metadata, unsupported, window_pattern

LAYERS_OF_27B = 46


def tensors(config: Config) -> names.Names:
    return names.weights(names.EMBEDDING, names.FINAL_NORM, names.SANDWICH_NORMS, names.ATTENTION, names.GATED_MLP)


def metadata(config: Config) -> dict[str, Value]:
    return {
        **shape_metadata(config),
        **window_pattern(config, period=2),
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
        "attn_logit_softcapping": number(config.values, "attn_logit_softcapping"),
        "final_logit_softcapping": number(config.values, "final_logit_softcapping"),
    }


def attention_scale(config: Config, large: int) -> Iterator[Item]:
    """llama.cpp scales by head_dim, or by hidden_size / heads in the largest model, which it knows by its layers."""
    scalar = config.get("query_pre_attn_scalar", config.head_dim)
    used = config.hidden_size // config.num_heads if config.num_layers == large else config.head_dim
    if scalar != used:
        yield unsupported("query_pre_attn_scalar", scalar)


def limits(config: Config) -> Iterator[Item]:
    yield from gemma.limits(config)
    yield from attention_scale(config, LAYERS_OF_27B)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if key in config.values and config.values[key] is None:
            yield unsupported(key, None)


FAMILY = replace(
    gemma.FAMILY,
    arch="gemma2",
    classes=("Gemma2ForCausalLM",),
    model_types=("gemma2",),
    activations=("gelu_pytorch_tanh",),
    defaults={
        **gemma.FAMILY.defaults, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
    },
    tensors=tensors,
    metadata=metadata,
    limits=limits,
)  # fmt: skip
