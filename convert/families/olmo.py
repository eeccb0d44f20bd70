"""OLMo (1): layer norms without any weights."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from .family import SILU, Family, layer_norm_metadata, refuse_flags, rotated_rows

EPSILON = 1e-5


def tensors(config: Config) -> names.Names:
    return names.weights(names.EMBEDDING, names.ATTENTION, names.GATED_MLP)


def metadata(config: Config) -> dict[str, Value]:
    keys = {**layer_norm_metadata(config), **rope.metadata(config.rope)}
    return keys if config.get("clip_qkv") is None else {**keys, "attention.clamp_kqv": config.number("clip_qkv")}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")


FAMILY = Family(
    arch="olmo",
    classes=("OlmoForCausalLM",),
    model_types=("olmo",),
    activations=SILU,
    defaults={"hidden_act": "silu", "layer_norm_eps": EPSILON, "rope_theta": 10_000.0, "tie_word_embeddings": False},
    tensors=tensors,
    metadata=metadata,
    transforms=rotated_rows,
    limits=limits,
    square=True,
)
