"""Qwen 1.5 and 2 with experts: routed ones whose weights are not normalised, and a shared one behind a gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import squeeze
from . import qwen2
from .family import Transform, expert_metadata, refuse_values, shape_metadata, unsupported

SHARED_GATE: names.Names = {names.LAYER + "mlp.shared_expert_gate": "blk.{}.ffn_gate_inp_shexp"}


def tensors(config: Config) -> names.Names:
    experts = names.weights(names.EXPERTS, names.SHARED_EXPERT, SHARED_GATE)
    return {**names.weights(names.BASE), **experts, **names.biases(qwen2.BIASED)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **shape_metadata(config),
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
        "expert_shared_feed_forward_length": config.shared_size,
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*\.ffn_gate_inp_shexp\.weight": squeeze}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"ffn_gate_inp_shexp": (config.hidden_size,)}


def sparse_everywhere(config: Config) -> Iterator[Item]:
    """llama.cpp has experts in every layer of these models."""
    yield from refuse_values(config, decoder_sparse_step=1)
    if config.get("mlp_only_layers"):
        yield unsupported("mlp_only_layers", config.get("mlp_only_layers"))


def limits(config: Config) -> Iterator[Item]:
    yield from qwen2.limits(config)
    yield from sparse_everywhere(config)
    yield from refuse_values(config, norm_topk_prob=False, qkv_bias=True)


FAMILY = replace(
    qwen2.FAMILY,
    arch="qwen2moe",
    classes=("Qwen2MoeForCausalLM",),
    model_types=("qwen2_moe",),
    defaults={**qwen2.FAMILY.defaults, "num_experts": 60, "num_experts_per_tok": 4},
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    tied_head=False,
)
