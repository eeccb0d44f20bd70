"""Phi-3, 3.5 and 4 (text): fused projections, kept fused; two tables of rotary factors for long contexts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .. import names, rope
from ..config import MAX_CONTEXT, Config, number
from ..gguf import Value
from ..report import Item
from .family import Family, shape_metadata, window_warning


def tensors(config: Config) -> names.Names:
    return names.weights(names.PHI3)


def rotated_dimensions(config: Config) -> int:
    return int(config.rope.partial_factor * config.head_dim)


def original_context(config: Config) -> int:
    """The window before it was extended; the config class's default is 4,096."""
    return int(number(config.rope.scaling, "original_max_position_embeddings",
                      number(config.values, "original_max_position_embeddings")))  # fmt: skip


def metadata(config: Config) -> dict[str, Value]:
    window = config.get("sliding_window")
    keys: dict[str, Value] = {
        **shape_metadata(config),
        "rope.dimension_count": rotated_dimensions(config),
        "rope.scaling.original_context_length": original_context(config),
        "attention.sliding_window": 0 if window is None else config.count("sliding_window", MAX_CONTEXT),
    }
    if config.rope.type == "longrope":
        keys["rope.scaling.attn_factor"] = rope.longrope_attention(config, original_context(config))
    return keys


def computed(config: Config) -> dict[str, NDArray[np.float32]]:
    return rope.longrope_factors(config, rotated_dimensions(config)) if config.rope.type == "longrope" else {}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"ffn_up": (2 * config.intermediate_size, config.hidden_size)}


def limits(config: Config) -> Iterator[Item]:
    yield from window_warning(config, config.get("sliding_window"))
    if config.rope.type == "longrope":
        yield Item(
            "rope",
            "warn",
            f"longrope: llama.cpp takes the long factors when it is loaded with a context of more than "
            f"{original_context(config):,} tokens, transformers when a prompt is longer than that",
        )


FAMILY = Family(
    arch="phi3",
    classes=("Phi3ForCausalLM",),
    model_types=("phi3",),
    activations=("silu",),
    defaults={
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    computed=computed,
    shapes=shapes,
    limits=limits,
    rope_types=frozenset({"default", "longrope"}),
    partial_rotary=True,
    square=True,
)  # fmt: skip
