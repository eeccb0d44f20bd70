"""OLMo 2: norms only after each half of a layer, and over all heads of query and key together."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import Config
from ..report import Item
from .family import Family, refuse_flags, shape_metadata


def tensors(config: Config) -> names.Names:
    return names.weights(
        names.EMBEDDING, names.FINAL_NORM, names.ATTENTION, names.QUERY_KEY_NORMS, names.POST_NORMS, names.GATED_MLP
    )


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {
        "attn_q_norm": (config.num_heads * config.head_dim,),
        "attn_k_norm": (config.num_kv_heads * config.head_dim,),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")


FAMILY = Family(
    arch="olmo2",
    classes=("Olmo2ForCausalLM",),
    model_types=("olmo2",),
    activations=("silu",),
    defaults={
        "vocab_size": 50304, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=shape_metadata,
    shapes=shapes,
    limits=limits,
    square=True,
    tied_head=False,
)  # fmt: skip
