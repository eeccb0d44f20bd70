"""Phi 1, 1.5 and 2: one layer norm per layer, attention and MLP side by side, a part of each head rotated."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from .family import GELU, Family, layer_norm_metadata, refuse_flags

BIASED: names.Names = {
    "model.final_layernorm": "output_norm",
    names.LAYER + "input_layernorm": "blk.{}.attn_norm",
    **names.renamed(names.ATTENTION, "o_proj", "dense"),
    names.LAYER + "mlp.fc1": "blk.{}.ffn_up",
    names.LAYER + "mlp.fc2": "blk.{}.ffn_down",
}


def tensors(config: Config) -> names.Names:
    return {**names.weights(names.EMBEDDING, BIASED), **names.biases(BIASED, names.HEAD)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **layer_norm_metadata(config),
        **rope.metadata(config.rope),
        "rope.dimension_count": config.rotary_size,
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "qk_layernorm", "tie_word_embeddings")


FAMILY = Family(
    arch="phi2",
    classes=("PhiForCausalLM",),
    model_types=("phi",),
    activations=GELU,
    defaults={
        "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    limits=limits,
    partial_rotary=True,
    square=True,
)  # fmt: skip
