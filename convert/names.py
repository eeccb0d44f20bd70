"""What tensors are called: in the checkpoints of transformers, and in GGUF.

A table maps source names to target names without ``.weight`` or ``.bias``; ``{}`` is the number of the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Names = Mapping[str, str]

LAYER = "model.layers.{}."
EMBEDDING: Names = {"model.embed_tokens": "token_embd"}
FINAL_NORM: Names = {"model.norm": "output_norm"}
HEAD: Names = {"lm_head": "output"}
ATTENTION: Names = {
    LAYER + "self_attn.q_proj": "blk.{}.attn_q",
    LAYER + "self_attn.k_proj": "blk.{}.attn_k",
    LAYER + "self_attn.v_proj": "blk.{}.attn_v",
    LAYER + "self_attn.o_proj": "blk.{}.attn_output",
}
QUERY_KEY_NORMS: Names = {
    LAYER + "self_attn.q_norm": "blk.{}.attn_q_norm",
    LAYER + "self_attn.k_norm": "blk.{}.attn_k_norm",
}
GATED_MLP: Names = {
    LAYER + "mlp.gate_proj": "blk.{}.ffn_gate",
    LAYER + "mlp.up_proj": "blk.{}.ffn_up",
    LAYER + "mlp.down_proj": "blk.{}.ffn_down",
}
PRE_NORMS: Names = {
    LAYER + "input_layernorm": "blk.{}.attn_norm",
    LAYER + "post_attention_layernorm": "blk.{}.ffn_norm",
}
POST_NORMS: Names = {
    LAYER + "post_attention_layernorm": "blk.{}.post_attention_norm",
    LAYER + "post_feedforward_layernorm": "blk.{}.post_ffw_norm",
}
SANDWICH_NORMS: Names = {
    LAYER + "input_layernorm": "blk.{}.attn_norm",
    LAYER + "pre_feedforward_layernorm": "blk.{}.ffn_norm",
    **POST_NORMS,
}
LLAMA: Names = {**EMBEDDING, **FINAL_NORM, **PRE_NORMS, **ATTENTION, **GATED_MLP}
PHI3: Names = {
    **EMBEDDING,
    **FINAL_NORM,
    **PRE_NORMS,
    LAYER + "self_attn.qkv_proj": "blk.{}.attn_qkv",
    LAYER + "self_attn.o_proj": "blk.{}.attn_output",
    LAYER + "mlp.gate_up_proj": "blk.{}.ffn_up",
    LAYER + "mlp.down_proj": "blk.{}.ffn_down",
}
GPT2: Names = {
    "transformer.h.{}.ln_1": "blk.{}.attn_norm",
    "transformer.h.{}.attn.c_attn": "blk.{}.attn_qkv",
    "transformer.h.{}.attn.c_proj": "blk.{}.attn_output",
    "transformer.h.{}.ln_2": "blk.{}.ffn_norm",
    "transformer.h.{}.mlp.c_fc": "blk.{}.ffn_up",
    "transformer.h.{}.mlp.c_proj": "blk.{}.ffn_down",
    "transformer.ln_f": "output_norm",
}
GPT2_EMBEDDINGS: Names = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd"}


def weights(*tables: Names) -> dict[str, str]:
    """The ``.weight`` of every name of the tables."""
    return _suffixed(tables, ".weight")


def biases(*tables: Names) -> dict[str, str]:
    """The ``.bias`` of every name of the tables."""
    return _suffixed(tables, ".bias")


def expand(table: Names, num_layers: int) -> dict[str, str]:
    """One entry per layer for names with ``{}``; tensors of a layer stay together, in its order."""
    once = {source: target for source, target in table.items() if "{}" not in source}
    layers = {
        source.format(layer): target.format(layer)
        for layer in range(num_layers)
        for source, target in table.items()
        if "{}" in source
    }
    return once | layers


def _suffixed(tables: Iterable[Names], suffix: str) -> dict[str, str]:
    return {source + suffix: target + suffix for table in tables for source, target in table.items()}
