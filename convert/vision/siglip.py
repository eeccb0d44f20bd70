"""The SigLIP tower, which several families put before their language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import names
from ..config import Config, flatten, number
from ..errors import BadCheckpoint
from ..families.family import Family
from ..gguf import Value

PROCESSOR = "the config of the image processor"
MAX_IMAGE_SIZE = 8192  # of llama.cpp
LAYER = "vision_model.encoder.layers.{}."
TOWER: names.Names = {
    "vision_model.embeddings.patch_embedding": "v.patch_embd",
    LAYER + "layer_norm1": "v.blk.{}.ln1",
    LAYER + "self_attn.q_proj": "v.blk.{}.attn_q",
    LAYER + "self_attn.k_proj": "v.blk.{}.attn_k",
    LAYER + "self_attn.v_proj": "v.blk.{}.attn_v",
    LAYER + "self_attn.out_proj": "v.blk.{}.attn_out",
    LAYER + "layer_norm2": "v.blk.{}.ln2",
    LAYER + "mlp.fc1": "v.blk.{}.ffn_up",
    LAYER + "mlp.fc2": "v.blk.{}.ffn_down",
    "vision_model.post_layernorm": "v.post_ln",
}
POSITIONS: names.Names = {"vision_model.embeddings.position_embedding": "v.position_embd"}
# Keys that a vision config has no value for, and that nothing asks for.
UNUSED: Mapping[str, Any] = {"vocab_size": 1, "max_position_embeddings": 1}
LANGUAGE: Mapping[str, str] = {
    r"(model\.)?(language_model|text_model|layers|embed_tokens|norm)\..*|(language_model\.)?lm_head\..*": "the "
    "language model, which is a file of its own"
}
FULL_WIDTH: Mapping[str, str] = {r"v\.(patch|position)_embd\.weight": "F32"}


def tensors(config: Config) -> names.Names:
    return {**names.weights(TOWER, POSITIONS), **names.biases(TOWER)}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, inner, patch = config.hidden_size, config.intermediate_size, patch_size(config)
    square = ("v.attn_q", "v.attn_k", "v.attn_v", "v.attn_out")
    return {
        "v.patch_embd": (hidden, 3, patch, patch),
        "v.patch_embd.bias": (hidden,),
        "v.position_embd": ((image_size(config) // patch) ** 2, hidden),
        **dict.fromkeys(square, (hidden, hidden)),
        **dict.fromkeys(("v.ln1", "v.ln2", "v.post_ln"), (hidden,)),
        "v.ffn_up": (inner, hidden),
        "v.ffn_down": (hidden, inner),
    }


def metadata(config: Config) -> dict[str, Value]:
    """The keys that llama.cpp's loader of vision parts asks every one of them for."""
    return {
        "has_vision_encoder": True,
        "vision.projection_dim": text_width(config),
        "vision.image_size": image_size(config),
        "vision.patch_size": patch_size(config),
        "vision.embedding_length": config.hidden_size,
        "vision.feed_forward_length": config.intermediate_size,
        "vision.block_count": config.num_layers,
        "vision.attention.head_count": config.num_heads,
        "vision.image_mean": channels(config, "image_mean"),
        "vision.image_std": channels(config, "image_std"),
        "vision.attention.layer_norm_epsilon": number(config.values, "layer_norm_eps"),
    }


def image_size(config: Config) -> int:
    return config.count("image_size", MAX_IMAGE_SIZE)


def patch_size(config: Config) -> int:
    return config.count("patch_size", MAX_IMAGE_SIZE)


def text_width(config: Config) -> int:
    """Size of a row that the language model reads."""
    return whole("config.json", flatten(config.get("model")), "hidden_size", 1 << 17)


def whole(place: str, values: Mapping[str, Any], key: str, most: int, default: int | None = None) -> int:
    """A whole number from 1 to ``most``. Raises :class:`BadCheckpoint` when it is anything else."""
    value = values.get(key, default)
    if type(value) is not int or not 0 < value <= most:
        raise BadCheckpoint(f"{place}: {key} must be a whole number from 1 to {most:,}, not {value!r}")
    return value


def channels(config: Config, key: str) -> Value:
    """A number for each of three channels, from the processor's config."""
    values = config.get("processor").get(key)
    if not isinstance(values, list) or len(values) != 3 or not all(type(value) in (int, float) for value in values):
        raise BadCheckpoint(f"{PROCESSOR}: {key} must be three numbers, not {values!r}")
    return np.array(values, np.float32)


FAMILY_OF_TOWER = Family(
    arch="clip",
    classes=(),
    model_types=(),
    activations=("gelu_pytorch_tanh", "gelu_new"),
    defaults={
        **UNUSED, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
    },
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    elements=FULL_WIDTH,
    dropped=LANGUAGE,
    root="",
    head="",
    square=True,
)  # fmt: skip
