"""Granite 3 with experts, gate and up projection fused; optionally a shared expert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, regroup, reshape
from . import granite
from .family import Transform, expert_metadata, refuse_flags, rotated_rows

MOE = names.LAYER + "block_sparse_moe."
EXPERTS: names.Names = {
    MOE + "router.layer": "blk.{}.ffn_gate_inp",
    MOE + "input_linear": ("blk.{}.ffn_gate_exps", "blk.{}.ffn_up_exps"),
    MOE + "output_linear": "blk.{}.ffn_down_exps",
}
SHARED: names.Names = {
    names.LAYER + "shared_mlp.input_linear": ("blk.{}.ffn_gate_shexp", "blk.{}.ffn_up_shexp"),
    names.LAYER + "shared_mlp.output_linear": "blk.{}.ffn_down_shexp",
}


def tensors(config: Config) -> names.Names:
    shared = names.weights(SHARED) if config.get("shared_intermediate_size") else {}
    return {**names.weights(names.BASE, EXPERTS), **shared}


def metadata(config: Config) -> dict[str, Value]:
    keys = {**granite.metadata(config), **expert_metadata(config)}
    if config.get("shared_intermediate_size"):
        keys["expert_shared_feed_forward_length"] = config.shared_size
    return keys


def half(config: Config, part: int) -> Transform:
    """The gate (0) or up (1) projections of all experts."""
    size = config.expert_size

    def take(rows: Rows) -> Rows:
        halves = regroup(rows, (size, size), config.num_experts, part)
        return reshape(halves, (config.num_experts, size, config.hidden_size))

    return take


def transforms(config: Config) -> dict[str, Transform]:
    shared = (config.shared_size, config.shared_size)
    return {
        **rotated_rows(config),
        r".*\.ffn_gate_exps\.weight": half(config, 0),
        r".*\.ffn_up_exps\.weight": half(config, 1),
        r".*\.ffn_gate_shexp\.weight": lambda rows: regroup(rows, shared, 1, 0),
        r".*\.ffn_up_shexp\.weight": lambda rows: regroup(rows, shared, 1, 1),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")


FAMILY = replace(
    granite.FAMILY,
    arch="granitemoe",
    classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    model_types=("granitemoe", "granitemoeshared"),
    defaults={**granite.FAMILY.defaults, "num_local_experts": 8, "num_experts_per_tok": 2},
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    limits=limits,
)
