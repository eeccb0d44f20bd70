"""Arcee (AFM 4.5B): Llama with a plain MLP and squared ReLU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..report import Item
from . import llama
from .family import refuse_flags


def tensors(config: Config) -> names.Names:
    return names.weights(names.BASE, names.PLAIN_MLP)


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "mlp_bias")


FAMILY = replace(
    llama.FAMILY,
    arch="arcee",
    classes=("ArceeForCausalLM",),
    model_types=("arcee",),
    activations=("relu2",),
    defaults={**llama.FAMILY.defaults, "hidden_act": "relu2", "rms_norm_eps": 1e-5},
    tensors=tensors,
    limits=limits,
)
