"""BLOOM: linear biases instead of positions, a norm after the embedding, fused projections head by head."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import regroup
from .family import GELU, Family, Transform, layer_norm_metadata, refuse_flags

LAYER = "transformer.h.{}."
NAMES: names.Names = {
    "transformer.word_embeddings_layernorm": "token_embd_norm",
    "transformer.ln_f": "output_norm",
    LAYER + "input_layernorm": "blk.{}.attn_norm",
    LAYER + "post_attention_layernorm": "blk.{}.ffn_norm",
    LAYER + "self_attention.query_key_value": "blk.{}.attn_qkv",
    LAYER + "self_attention.dense": "blk.{}.attn_output",
    LAYER + "mlp.dense_h_to_4h": "blk.{}.ffn_up",
    LAYER + "mlp.dense_4h_to_h": "blk.{}.ffn_down",
}


def tensors(config: Config) -> names.Names:
    return {**names.weights({"transformer.word_embeddings": "token_embd"}, NAMES), **names.biases(NAMES)}


def transforms(config: Config) -> dict[str, Transform]:
    heads = [config.head_dim] * 3
    return {r".*\.attn_qkv\..*": lambda rows: regroup(rows, heads, config.num_heads, 0, 1, 2)}


def metadata(config: Config) -> dict[str, Value]:
    return layer_norm_metadata(config)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"token_embd_norm": (config.hidden_size,)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "apply_residual_connection_post_layernorm")


FAMILY = Family(
    arch="bloom",
    classes=("BloomForCausalLM",),
    model_types=("bloom",),
    activations=GELU,
    defaults={
        "hidden_act": "gelu", "layer_norm_epsilon": 1e-5, "seq_length": 2048, "tie_word_embeddings": True,
    },
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    root="transformer.",
    embedding="transformer.word_embeddings.weight",
    square=True,
)  # fmt: skip
