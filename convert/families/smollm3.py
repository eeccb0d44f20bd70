"""SmolLM3: Llama without rotary embedding on every fourth layer, which llama.cpp has built in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import MAX_LAYERS, Config
from ..report import Item
from .family import ROPE_TYPES, refuse_flags, unsupported, window_warning
from .llama import FAMILY as LLAMA

ROPELESS_EVERY = 4


def tensors(config: Config) -> names.Names:
    return names.weights(names.LLAMA)


def rotated_layers(config: Config) -> list[bool]:
    """For each layer, whether it has rotary embedding."""
    given = config.get("no_rope_layers")
    if given:
        return [bool(rotated) for rotated in given] if isinstance(given, list) else []
    interval = config.count("no_rope_layer_interval", MAX_LAYERS, ROPELESS_EVERY)
    return [(layer + 1) % interval != 0 for layer in range(config.num_layers)]


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "mlp_bias")
    if rotated_layers(config) != [(layer + 1) % ROPELESS_EVERY != 0 for layer in range(config.num_layers)]:
        yield unsupported("no_rope_layers", config.get("no_rope_layers"))
    if config.flag("use_sliding_window"):
        yield from window_warning(config, config.get("sliding_window"))


FAMILY = replace(
    LLAMA,
    arch="smollm3",
    classes=("SmolLM3ForCausalLM",),
    model_types=("smollm3",),
    activations=("silu",),
    defaults={
        **LLAMA.defaults, "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768,
        "rope_theta": 2_000_000.0, "tie_word_embeddings": True,
    },
    tensors=tensors,
    computed=lambda config: {},
    limits=limits,
    rope_types=ROPE_TYPES,
)  # fmt: skip
