"""Jais 2: layer norms and biases everywhere, rotary embedding, a plain MLP with squared ReLU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import starcoder2
from .family import refuse_values

BIASED: names.Names = {**names.FINAL_NORM, **names.PRE_NORMS, **names.ATTENTION, **names.PLAIN_MLP}


def tensors(config: Config) -> names.Names:
    return {**names.weights(names.EMBEDDING, BIASED), **names.biases(BIASED)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **starcoder2.metadata(config),
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_values(config, attention_bias=True, mlp_bias=True)


FAMILY = replace(
    starcoder2.FAMILY,
    arch="jais2",
    classes=("Jais2ForCausalLM",),
    model_types=("jais2",),
    activations=("relu2",),
    defaults={"hidden_act": "relu2", "layer_norm_eps": 1e-5, "tie_word_embeddings": False},
    tensors=tensors,
    metadata=metadata,
    limits=limits,
    square=False,
)
