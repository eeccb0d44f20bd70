"""Qwen 3.5 with experts (text)."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from . import qwen3_5, qwen3_next


def tensors(config: Config) -> names.Names:
    plain = names.weights(names.EMBEDDING, names.FINAL_NORM, qwen3_next.NORMS, qwen3_next.EXPERTS)
    return {**plain, **qwen3_next.mixers(config, qwen3_5.INPUTS)}


def metadata(config: Config) -> dict[str, Value]:
    return {**qwen3_5.metadata(config), **qwen3_next.expert_keys(config)}


FAMILY = replace(
    qwen3_5.FAMILY,
    arch="qwen35moe",
    classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    model_types=("qwen3_5_moe_text", "qwen3_5_moe"),
    tensors=tensors,
    metadata=metadata,
)
