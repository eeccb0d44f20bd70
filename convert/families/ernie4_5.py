"""ERNIE 4.5: Llama whose rotary embedding turns neighbours, as llama.cpp's does."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from . import llama
from .family import ROPE_TYPES, refuse_flags, shape_metadata


def tensors(config: Config) -> names.Names:
    return names.weights(names.LLAMA)


def metadata(config: Config) -> dict[str, Value]:
    return shape_metadata(config)


FAMILY = replace(
    llama.FAMILY,
    arch="ernie4_5",
    classes=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    model_types=("ernie4_5",),
    defaults={**llama.FAMILY.defaults, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "tie_word_embeddings": True},
    tensors=tensors,
    metadata=metadata,
    transforms=lambda config: {},
    computed=lambda config: {},
    limits=lambda config: refuse_flags(config, "use_bias"),
    rope_types=ROPE_TYPES,
)
