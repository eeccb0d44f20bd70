"""LFM2 with experts, chosen by a sigmoid with a bias, after the first dense layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from . import lfm2
from .family import SIGMOID, expert_metadata, refuse_flags, refuse_values

FEED = names.LAYER + "feed_forward."
EXPERTS: names.Names = {
    FEED + "gate": "blk.{}.ffn_gate_inp",
    FEED + "experts.{expert}.w1": "blk.{}.ffn_gate_exps",
    FEED + "experts.{expert}.w3": "blk.{}.ffn_up_exps",
    FEED + "experts.{expert}.w2": "blk.{}.ffn_down_exps",
}
CHOICE: names.Names = {FEED + "expert_bias": "blk.{}.exp_probs_b.bias"}


def dense_layers(config: Config) -> int:
    return int(config.get("num_dense_layers", 2))


def tensors(config: Config) -> names.Names:
    dense = dense_layers(config)
    return {
        **names.weights(lfm2.ALWAYS),
        **names.in_layers(names.weights(lfm2.MLP), range(dense)),
        **names.in_layers({**names.weights(EXPERTS), **CHOICE}, range(dense, config.num_layers)),
        **lfm2.mixers(config),
    }


def metadata(config: Config) -> dict[str, Value]:
    return {
        **lfm2.metadata(config),
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
        "leading_dense_block_count": dense_layers(config),
        "expert_gating_func": SIGMOID,
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "conv_bias")
    yield from refuse_values(config, use_expert_bias=True, norm_topk_prob=True, routed_scaling_factor=1.0)


FAMILY = replace(
    lfm2.FAMILY,
    arch="lfm2moe",
    classes=("Lfm2MoeForCausalLM",),
    model_types=("lfm2_moe",),
    derived=lambda values: {},
    tensors=tensors,
    metadata=metadata,
    limits=limits,
)
