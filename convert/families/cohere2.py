"""Command R7B and A: Command R with windowed layers, the only ones with rotary embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..report import Item
from . import cohere
from .family import refuse_flags, unsupported, window_pattern


def metadata(config: Config) -> dict[str, Value]:
    return {
        **cohere.metadata(config),
        **window_pattern(config, period=4),
        "vocab_size": config.vocab_size,
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
        "rope.dimension_count": config.head_dim,
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "use_qk_norm")
    if not config.tied:
        yield unsupported("tie_word_embeddings", False)


FAMILY = replace(
    cohere.FAMILY,
    arch="cohere2",
    classes=("Cohere2ForCausalLM",),
    model_types=("cohere2",),
    defaults={**cohere.FAMILY.defaults, "sliding_window": 4096, "sliding_window_pattern": 4},
    derived=lambda values: {},
    metadata=metadata,
    limits=limits,
)
