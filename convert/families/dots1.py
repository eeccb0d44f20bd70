"""dots.llm1: sigmoid-routed experts with a bias after the first dense layers, norms on each head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import glm4_moe, qwen3
from .family import refuse_flags, shape_metadata, unsupported


def tensors(config: Config) -> names.Names:
    experts = {**names.weights(names.EXPERTS, glm4_moe.SHARED), **glm4_moe.CHOICE}
    return {**names.weights(names.BASE, names.QUERY_KEY_NORMS), **glm4_moe.mlps(config, experts)}


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), **glm4_moe.sigmoid_experts(config)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    yield from glm4_moe.ungrouped(config)
    yield from qwen3.limits(config)
    if config.num_kv_heads != config.num_heads:
        yield unsupported("num_key_value_heads", config.num_kv_heads)


FAMILY = replace(
    qwen3.FAMILY,
    arch="dots1",
    classes=("Dots1ForCausalLM",),
    model_types=("dots1",),
    defaults={
        **qwen3.FAMILY.defaults, "head_dim": None, "n_shared_experts": 2, "routed_scaling_factor": 1.0,
        "norm_topk_prob": True,
    },
    tensors=tensors,
    derived=glm4_moe.derived,
    metadata=metadata,
    limits=limits,
    tied_head=False,
)  # fmt: skip
