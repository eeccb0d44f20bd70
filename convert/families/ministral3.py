"""Ministral 3 and Mistral Small 3: Mistral with a temperature that grows with the position; the text part of both."""

from __future__ import annotations

from dataclasses import replace

from ..config import Config
from ..gguf import Value
from . import llama
from .family import ROPE_TYPES, VISION_DROPPED
from .mistral import FAMILY as MISTRAL


def metadata(config: Config) -> dict[str, Value]:
    keys = llama.metadata(config)
    beta = config.rope.scaling.get("llama_4_scaling_beta")
    return keys if beta is None else {**keys, "attention.temperature_scale": float(beta)}


FAMILY = replace(
    MISTRAL,
    arch="mistral3",
    classes=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    model_types=("ministral3", "mistral3"),
    metadata=metadata,
    computed=lambda config: {},
    dropped=VISION_DROPPED,
    rope_types=ROPE_TYPES,
)
