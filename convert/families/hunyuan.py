"""Hunyuan dense (0.5B to 7B): Llama with norms on each head after its rotary embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..report import Item
from . import llama
from .family import refuse_flags, shape_metadata

HEAD_NORMS: names.Names = {
    names.LAYER + "self_attn.query_layernorm": "blk.{}.attn_q_norm",
    names.LAYER + "self_attn.key_layernorm": "blk.{}.attn_k_norm",
}


def tensors(config: Config) -> names.Names:
    return names.weights(names.LLAMA, HEAD_NORMS)


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "mlp_bias")


FAMILY = replace(
    llama.FAMILY,
    arch="hunyuan-dense",
    classes=("HunYuanDenseV1ForCausalLM",),
    model_types=("hunyuan_v1_dense",),
    tensors=tensors,
    metadata=shape_metadata,
    transforms=lambda config: {},
    computed=lambda config: {},
    limits=limits,
    rope_types=frozenset({"default"}),
)
