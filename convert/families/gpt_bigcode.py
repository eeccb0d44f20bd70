"""StarCoder (1) and SantaCoder: GPT-2 with one key-value head and projections stored as (out, in)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..config import Config
from ..gguf import Value
from ..report import Item
from . import gpt2
from .family import GELU, layer_norm_metadata, refuse_values


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_key_value_heads": 1}


def metadata(config: Config) -> dict[str, Value]:
    return layer_norm_metadata(config)


def limits(config: Config) -> Iterator[Item]:
    yield from gpt2.limits(config)
    yield from refuse_values(config, multi_query=True)


FAMILY = replace(
    gpt2.FAMILY,
    arch="starcoder",
    classes=("GPTBigCodeForCausalLM",),
    model_types=("gpt_bigcode",),
    activations=GELU,
    defaults={**gpt2.FAMILY.defaults, "activation_function": "gelu_pytorch_tanh"},
    derived=derived,
    metadata=metadata,
    transforms=lambda config: {},
    conv1d="",
    limits=limits,
)
