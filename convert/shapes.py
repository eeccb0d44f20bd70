"""The shape every tensor must have, computed from the config."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .config import Config

LAYER_PREFIX = re.compile(r"blk\.\d+\.")


def expected(target: str, config: Config, own: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a target tensor, slowest dimension first.

    ``own`` are a family's exceptions: for a name in all layers (``attn_q``), or in one (``blk.3.attn_q``). A bias has
    the shape of its weight, without the last dimension, unless it is named in full.
    """
    if target in own:
        return own[target]
    plain = target if target.endswith((".weight", ".bias")) else f"{target}."
    name, _, kind = LAYER_PREFIX.sub("", plain).rpartition(".")
    shape = own.get(target.removesuffix(f".{kind}")) or own.get(name) or _common(config)[name]
    return shape[:-1] if kind == "bias" and len(shape) > 1 else shape


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
        **_experts(config),
    }


def _experts(config: Config) -> dict[str, tuple[int, ...]]:
    count, hidden, inner = config.num_experts, config.hidden_size, config.expert_size
    return {
        "ffn_gate_inp": (count, hidden),
        "exp_probs_b": (count,),
        **dict.fromkeys(("ffn_gate_exps", "ffn_up_exps"), (count, inner, hidden)),
        "ffn_down_exps": (count, hidden, inner),
        **dict.fromkeys(("ffn_gate_shexp", "ffn_up_shexp"), (config.shared_size, hidden)),
        "ffn_down_shexp": (hidden, config.shared_size),
    }
