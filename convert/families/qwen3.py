"""Qwen 3: norms on each head's query and key, no biases, a head size of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..report import Item
from . import qwen2
from .family import refuse_flags


def tensors(config: Config) -> names.Names:
    return names.weights(names.LLAMA, names.QUERY_KEY_NORMS)


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    yield from qwen2.limits(config)


FAMILY = replace(
    qwen2.FAMILY,
    arch="qwen3",
    classes=("Qwen3ForCausalLM",),
    model_types=("qwen3",),
    defaults={**qwen2.FAMILY.defaults, "head_dim": 128},
    tensors=tensors,
    limits=limits,
    square=False,
)
