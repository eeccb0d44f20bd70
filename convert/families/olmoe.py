"""OLMoE: experts whose weights are not normalised, norms over all heads of query and key together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import olmo2
from .family import expert_metadata, refuse_flags, refuse_values, shape_metadata, unsupported


def tensors(config: Config) -> names.Names:
    return names.weights(names.BASE, names.QUERY_KEY_NORMS, names.EXPERTS)


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), **expert_metadata(config)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "norm_topk_prob")
    yield from refuse_values(config, clip_qkv=None)
    if config.num_kv_heads != config.num_heads:
        yield unsupported("num_key_value_heads", config.num_kv_heads)


FAMILY = replace(
    olmo2.FAMILY,
    arch="olmoe",
    classes=("OlmoeForCausalLM",),
    model_types=("olmoe",),
    defaults={**olmo2.FAMILY.defaults, "num_experts": 64, "num_experts_per_tok": 8},
    tensors=tensors,
    metadata=metadata,
    limits=limits,
)
