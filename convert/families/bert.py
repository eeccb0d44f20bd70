"""BERT: learned positions, segments, layer norms after each block, attention in both directions."""

from __future__ import annotations

from collections.abc import Iterator

from .. import heads, names
from ..config import Config, number
from ..gguf import Value
from ..names import Names
from ..report import Item
from .family import Family, refuse_flags, unsupported

GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")
SPELLINGS = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}
DROPPED = {
    r".*embeddings\.position_ids": "counted from 0, not a weight",
    r".*pooler\.dense\.(weight|bias)": "the pooler of another head",
    r"cls\.seq_relationship\.(weight|bias)": "next-sentence prediction, a training task",
}


def tensors(root: str) -> Names:
    """BERT's names below ``root``, but for the segments, which not every relative has."""
    layer = f"{root}encoder.layer.{{}}."
    table = {
        f"{root}embeddings.LayerNorm": "token_embd_norm",
        layer + "attention.self.query": "blk.{}.attn_q",
        layer + "attention.self.key": "blk.{}.attn_k",
        layer + "attention.self.value": "blk.{}.attn_v",
        layer + "attention.output.dense": "blk.{}.attn_output",
        layer + "attention.output.LayerNorm": "blk.{}.attn_output_norm",
        layer + "intermediate.dense": "blk.{}.ffn_up",
        layer + "output.dense": "blk.{}.ffn_down",
        layer + "output.LayerNorm": "blk.{}.layer_output_norm",
    }
    embeddings = {
        f"{root}embeddings.word_embeddings": "token_embd",
        f"{root}embeddings.position_embeddings": "position_embd",
        f"{root}embeddings.token_type_embeddings": "token_types",
    }
    return {**names.weights(embeddings, table), **names.biases(table)}


def pooler(root: str) -> Names:
    table = {f"{root}pooler.dense": "cls"}
    return {**names.weights(table), **names.biases(table)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.layer_norm_epsilon": number(config.values, "layer_norm_eps"),
        "attention.causal": False,
    }


def token_types(config: Config) -> int:
    return config.count("type_vocab_size", 1 << 10)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"token_types": (token_types(config), config.hidden_size)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "is_decoder", "add_cross_attention")
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        yield unsupported("position_embedding_type", kind)


FAMILY = Family(
    arch="bert",
    classes=("BertModel", *heads.classes(("Bert",))),
    model_types=("bert",),
    activations=GELU,
    defaults={
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "tie_word_embeddings": True,
    },
    tensors=lambda config: tensors("bert."),
    optional=lambda config: pooler("bert."),
    spellings=SPELLINGS,
    metadata=metadata,
    shapes=shapes,
    dropped=DROPPED,
    limits=limits,
    rope_types=frozenset(),
    root="bert.",
    head="",
    embedding="bert.embeddings.word_embeddings.weight",
    square=True,
    token_types=token_types,
)  # fmt: skip
