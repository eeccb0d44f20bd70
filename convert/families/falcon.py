"""Falcon: attention and MLP side by side, fused query, key and value in groups of the key-value heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, regroup
from .family import GELU, Family, Transform, layer_norm_metadata, refuse_flags, refuse_values

LAYER = "transformer.h.{}."
MATRICES: names.Names = {
    "transformer.word_embeddings": "token_embd",
    LAYER + "self_attention.query_key_value": "blk.{}.attn_qkv",
    LAYER + "self_attention.dense": "blk.{}.attn_output",
    LAYER + "mlp.dense_h_to_4h": "blk.{}.ffn_up",
    LAYER + "mlp.dense_4h_to_h": "blk.{}.ffn_down",
}
ONE_NORM: names.Names = {LAYER + "input_layernorm": "blk.{}.attn_norm"}
TWO_NORMS: names.Names = {LAYER + "ln_mlp": "blk.{}.attn_norm", LAYER + "ln_attn": "blk.{}.attn_norm_2"}
FINAL_NORM: names.Names = {"transformer.ln_f": "output_norm"}


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The number of key-value heads: ``num_kv_heads`` says nothing unless the decoder is of the new kind."""
    if values.get("new_decoder_architecture"):
        return {"num_key_value_heads": values.get("num_kv_heads")}
    return {"num_key_value_heads": 1 if values.get("multi_query", True) else None}


def tensors(config: Config) -> names.Names:
    single = not config.flag("new_decoder_architecture") or config.get("num_ln_in_parallel_attn", 2) == 1
    norms = {**FINAL_NORM, **(ONE_NORM if single else TWO_NORMS)}
    return {**names.weights(MATRICES, norms), **names.biases(norms)}


def metadata(config: Config) -> dict[str, Value]:
    return {**layer_norm_metadata(config), **rope.metadata(config.rope)}


def transforms(config: Config) -> dict[str, Transform]:
    sizes = (config.num_heads // config.num_kv_heads * config.head_dim, config.head_dim, config.head_dim)

    def apart(rows: Rows) -> Rows:
        return regroup(rows, sizes, config.num_kv_heads, 0, 1, 2)

    return {r".*\.attn_qkv\.weight": apart}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"attn_norm_2": (config.hidden_size,)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "alibi", "bias")
    if not config.flag("new_decoder_architecture"):
        yield from refuse_values(config, parallel_attn=True)


FAMILY = Family(
    arch="falcon",
    classes=("FalconForCausalLM", "RWForCausalLM"),
    model_types=("falcon", "RefinedWeb", "RefinedWebModel"),
    activations=GELU,
    defaults={
        "activation": "gelu", "layer_norm_epsilon": 1e-5, "max_position_embeddings": 2048, "tie_word_embeddings": True,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    root="transformer.",
    embedding="transformer.word_embeddings.weight",
    square=True,
)  # fmt: skip
