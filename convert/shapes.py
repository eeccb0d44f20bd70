"""The shape every tensor must have, computed from the config."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .config import Config

LAYER_PREFIX = re.compile(r"blk\.\d+\.")


def expected(target: str, config: Config, own: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a target tensor, slowest dimension first; ``own`` are a family's exceptions.

    A bias has the first dimension of its weight.
    """
    name, _, kind = LAYER_PREFIX.sub("", target).rpartition(".")
    shape = own.get(name) or _common(config)[name]
    return shape[:1] if kind == "bias" else shape


def _common(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    norms = ("output_norm", "attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    return {
        "token_embd": (config.vocab_size, hidden),
        "output": (config.vocab_size, hidden),
        **dict.fromkeys(norms, (hidden,)),
        "attn_q": (query, hidden),
        "attn_k": (key, hidden),
        "attn_v": (key, hidden),
        "attn_qkv": (query + 2 * key, hidden),
        "attn_output": (hidden, query),
        "attn_q_norm": (config.head_dim,),
        "attn_k_norm": (config.head_dim,),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
        "position_embd": (config.context_length, hidden),
        **dict.fromkeys(("token_embd_norm", "attn_output_norm", "layer_output_norm", "cls.norm"), (hidden,)),
        "cls": (hidden, hidden),
    }
