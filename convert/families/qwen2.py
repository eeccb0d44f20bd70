"""Qwen 2 and 2.5: Llama with biases on query, key and value."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import Config
from ..report import Item
from .family import Family, shape_metadata, window_warning

BIASED = {source: target for source, target in names.ATTENTION.items() if not source.endswith("o_proj")}


def tensors(config: Config) -> names.Names:
    return {**names.weights(names.LLAMA), **names.biases(BIASED)}


def limits(config: Config) -> Iterator[Item]:
    if config.flag("use_sliding_window"):
        yield from window_warning(config, config.get("sliding_window", 4096))


FAMILY = Family(
    arch="qwen2",
    classes=("Qwen2ForCausalLM",),
    model_types=("qwen2",),
    activations=("silu",),
    defaults={
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=shape_metadata,
    limits=limits,
    square=True,
)  # fmt: skip
