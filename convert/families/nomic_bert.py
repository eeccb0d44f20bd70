"""Nomic's BERT: rotary positions, gated layers without biases; spelt as in its own code and as in transformers 5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import heads, names, rope
from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..names import Names
from ..report import Item
from . import bert
from .family import refuse_flags, unsupported

LAYER = "nomic_bert.encoder.layers.{}."
MATRICES = {
    "nomic_bert.embeddings.word_embeddings": "token_embd",
    "nomic_bert.embeddings.token_type_embeddings": "token_types",
    LAYER + "attn.Wqkv": "blk.{}.attn_qkv",
    LAYER + "attn.out_proj": "blk.{}.attn_output",
    LAYER + "mlp.fc11": "blk.{}.ffn_up",
    LAYER + "mlp.fc12": "blk.{}.ffn_gate",
    LAYER + "mlp.fc2": "blk.{}.ffn_down",
}
NORMS = {
    "nomic_bert.emb_ln": "token_embd_norm",
    LAYER + "norm1": "blk.{}.attn_output_norm",
    LAYER + "norm2": "blk.{}.layer_output_norm",
}
OWN_CODE = {
    "prenorm": False, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "causal": False,
    "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "rotary_emb_scale_base": None,
}  # fmt: skip
"""What llama.cpp computes of the settings that only the model's own code has."""


def tensors(config: Config) -> Names:
    return {**names.weights(MATRICES, NORMS), **names.biases(NORMS)}


def metadata(config: Config) -> dict[str, Value]:
    return {**bert.metadata(config), **rope.metadata(config.rope), "context_length": trained(config)}


def trained(config: Config) -> int:
    """The positions it was trained on; its own code promises more by scaling."""
    return min(config.context_length, config.count("max_trained_positions", MAX_CONTEXT, 2048))


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "moe_every_n_layers")
    for key, computed in OWN_CODE.items():
        if config.get(key, computed) != computed:
            yield unsupported(key, config.get(key))


FAMILY = replace(
    bert.FAMILY,
    arch="nomic-bert",
    classes=("NomicBertModel", *heads.classes(("NomicBert",))),
    model_types=("nomic_bert",),
    activations=("silu", "swiglu"),
    defaults={
        "vocab_size": 30528, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "silu", "max_position_embeddings": 2048, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "rotary_emb_base": 1000.0, "tie_word_embeddings": True,
    },
    tensors=tensors,
    optional=lambda config: {},
    spellings={},
    metadata=metadata,
    limits=limits,
    rope_types=frozenset({"default"}),
    root="nomic_bert.",
    embedding="nomic_bert.embeddings.word_embeddings.weight",
)  # fmt: skip
