"""Qwen 3 with experts, whose weights llama.cpp always normalises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import qwen2_moe, qwen3
from .family import expert_metadata, shape_metadata, unsupported


def tensors(config: Config) -> names.Names:
    return names.weights(names.BASE, names.QUERY_KEY_NORMS, names.EXPERTS)


def metadata(config: Config) -> dict[str, Value]:
    return {
        **shape_metadata(config),
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
    }


def limits(config: Config) -> Iterator[Item]:
    yield from qwen3.limits(config)
    yield from qwen2_moe.sparse_everywhere(config)
    if not config.flag("norm_topk_prob"):
        yield unsupported("norm_topk_prob", False)


FAMILY = replace(
    qwen3.FAMILY,
    arch="qwen3moe",
    classes=("Qwen3MoeForCausalLM",),
    model_types=("qwen3_moe",),
    defaults={**qwen3.FAMILY.defaults, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": False},
    tensors=tensors,
    metadata=metadata,
    limits=limits,
)
