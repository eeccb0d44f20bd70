"""Seed-OSS: Qwen 2 with a head size of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..report import Item
from . import qwen2
from .family import refuse_flags

PRE_NORMS: names.Names = {
    names.LAYER + "input_layernorm": "blk.{}.attn_norm",
    names.LAYER + "post_attention_layernorm": "blk.{}.post_attention_norm",
}


def tensors(config: Config) -> names.Names:
    biases = names.biases(qwen2.BIASED) if config.flag("attention_bias") else {}
    plain = names.weights(names.EMBEDDING, names.FINAL_NORM, PRE_NORMS, names.ATTENTION, names.GATED_MLP)
    return {**plain, **biases}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_out_bias", "mlp_bias")


FAMILY = replace(
    qwen2.FAMILY,
    arch="seed_oss",
    classes=("SeedOssForCausalLM",),
    model_types=("seed_oss",),
    defaults={**qwen2.FAMILY.defaults, "head_dim": 128, "attention_bias": True},
    tensors=tensors,
    limits=limits,
    square=False,
)
