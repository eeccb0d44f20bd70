"""Llama and all that share its class: SmolLM and SmolLM2, TinyLlama, Yi."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import names, rope
from ..config import Config
from ..gguf import Value
from .family import ROPE_TYPES, Family, rotated_rows, shape_metadata


def tensors(config: Config) -> names.Names:
    biased: tuple[names.Names, ...] = (names.ATTENTION,) if config.flag("attention_bias") else ()
    biased += (names.GATED_MLP,) if config.flag("mlp_bias") else ()
    return {**names.weights(names.LLAMA), **names.biases(*biased)}


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), "vocab_size": config.vocab_size, "rope.dimension_count": config.head_dim}


def computed(config: Config) -> dict[str, NDArray[np.float32]]:
    return {"rope_freqs.weight": rope.llama3_factors(config)} if config.rope.type == "llama3" else {}


FAMILY = Family(
    arch="llama",
    classes=("LlamaForCausalLM", "LLaMAForCausalLM"),
    model_types=("llama",),
    activations=("silu", "swish"),
    defaults={
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    transforms=rotated_rows,
    computed=computed,
    rope_types=ROPE_TYPES | {"llama3"},
)  # fmt: skip
