"""Mistral: Llama's graph. llama.cpp applies no sliding window to it, which the report says where it matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..report import Item
from .family import window_warning
from .llama import FAMILY as LLAMA


def limits(config: Config) -> Iterator[Item]:
    yield from window_warning(config, config.get("sliding_window"))


FAMILY = replace(
    LLAMA,
    classes=("MistralForCausalLM",),
    model_types=("mistral",),
    defaults={
        **LLAMA.defaults, "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    },
    limits=limits,
)  # fmt: skip
