"""Granite 3: Llama with four multipliers."""

from __future__ import annotations

from dataclasses import replace

from ..config import Config
from ..gguf import Value
from . import llama
from .family import ROPE_TYPES


def multipliers(config: Config) -> dict[str, Value]:
    return {
        "attention.scale": config.number("attention_multiplier"),
        "embedding_scale": config.number("embedding_multiplier"),
        "residual_scale": config.number("residual_multiplier"),
        "logit_scale": config.number("logits_scaling"),
    }


def metadata(config: Config) -> dict[str, Value]:
    return {**llama.metadata(config), **multipliers(config)}


FAMILY = replace(
    llama.FAMILY,
    arch="granite",
    classes=("GraniteForCausalLM",),
    model_types=("granite",),
    defaults={
        **llama.FAMILY.defaults, "attention_multiplier": 1.0, "embedding_multiplier": 1.0, "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
    metadata=metadata,
    computed=lambda config: {},
    rope_types=ROPE_TYPES,
)  # fmt: skip
