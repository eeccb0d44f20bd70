"""DistilBERT: BERT without segments, under other names, and with a ReLU in its classifier."""

from __future__ import annotations

from dataclasses import replace

from .. import heads, names
from ..config import Config
from ..names import Names
from . import bert

LAYER = "distilbert.transformer.layer.{}."
BLOCKS = {
    "distilbert.embeddings.LayerNorm": "token_embd_norm",
    LAYER + "attention.q_lin": "blk.{}.attn_q",
    LAYER + "attention.k_lin": "blk.{}.attn_k",
    LAYER + "attention.v_lin": "blk.{}.attn_v",
    LAYER + "attention.out_lin": "blk.{}.attn_output",
    LAYER + "sa_layer_norm": "blk.{}.attn_output_norm",
    LAYER + "ffn.lin1": "blk.{}.ffn_up",
    LAYER + "ffn.lin2": "blk.{}.ffn_down",
    LAYER + "output_layer_norm": "blk.{}.layer_output_norm",
}
EMBEDDINGS = {
    "distilbert.embeddings.word_embeddings": "token_embd",
    "distilbert.embeddings.position_embeddings": "position_embd",
}


def tensors(config: Config) -> Names:
    return {**names.weights(EMBEDDINGS, BLOCKS), **names.biases(BLOCKS)}


def one_type(config: Config) -> int:
    """There are none, and llama.cpp insists on one."""
    return 1


FAMILY = replace(
    bert.FAMILY,
    classes=("DistilBertModel", *heads.classes(("DistilBert",))),
    model_types=("distilbert",),
    defaults={
        "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu",
        "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "tie_word_embeddings": True,
    },
    tensors=tensors,
    optional=lambda config: {},
    shapes=lambda config: {},
    root="distilbert.",
    embedding="distilbert.embeddings.word_embeddings.weight",
    token_types=one_type,
)  # fmt: skip
