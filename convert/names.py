"""What tensors are called: in the checkpoints of transformers, and in GGUF.

A table maps source names to target names without ``.weight`` or ``.bias``; ``{}`` is the number of the layer. A source
with ``{expert}``, ``{head}`` or ``{kv_head}`` stands for one tensor of each, which are stacked. Several targets, each
with its own transform, may come from one source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Names = Mapping[str, str | tuple[str, ...]]

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
PLAIN_MLP: Names = {
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
EXPERTS: Names = {
    LAYER + "mlp.gate": "blk.{}.ffn_gate_inp",
    LAYER + "mlp.experts.{expert}.gate_proj": "blk.{}.ffn_gate_exps",
    LAYER + "mlp.experts.{expert}.up_proj": "blk.{}.ffn_up_exps",
    LAYER + "mlp.experts.{expert}.down_proj": "blk.{}.ffn_down_exps",
}
MIXTRAL_EXPERTS: Names = {
    LAYER + "block_sparse_moe.gate": "blk.{}.ffn_gate_inp",
    LAYER + "block_sparse_moe.experts.{expert}.w1": "blk.{}.ffn_gate_exps",
    LAYER + "block_sparse_moe.experts.{expert}.w3": "blk.{}.ffn_up_exps",
    LAYER + "block_sparse_moe.experts.{expert}.w2": "blk.{}.ffn_down_exps",
}
SHARED_EXPERT: Names = {
    LAYER + "mlp.shared_expert.gate_proj": "blk.{}.ffn_gate_shexp",
    LAYER + "mlp.shared_expert.up_proj": "blk.{}.ffn_up_shexp",
    LAYER + "mlp.shared_expert.down_proj": "blk.{}.ffn_down_shexp",
}
BASE: Names = {**EMBEDDING, **FINAL_NORM, **PRE_NORMS, **ATTENTION}
LLAMA: Names = {**BASE, **GATED_MLP}
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


def weights(*tables: Names) -> dict[str, str | tuple[str, ...]]:
    """The ``.weight`` of every name of the tables."""
    return _suffixed(tables, ".weight")


def biases(*tables: Names) -> dict[str, str | tuple[str, ...]]:
    """The ``.bias`` of every name of the tables."""
    return _suffixed(tables, ".bias")


def only(table: Names, *parts: str) -> Names:
    """The entries of a table whose target ends with one of ``parts``."""
    return {source: target for source, target in table.items() if _targets(target)[-1].endswith(parts)}


def without(table: Names, *parts: str) -> Names:
    """The entries of a table whose target ends with none of ``parts``."""
    return {source: target for source, target in table.items() if not _targets(target)[-1].endswith(parts)}


def in_layers(table: Names, layers: Iterable[int]) -> dict[str, str | tuple[str, ...]]:
    """A table of layers, for some of them only."""
    return {
        _numbered(source, layer): tuple(_numbered(target, layer) for target in _targets(targets))
        for layer in layers
        for source, targets in table.items()
    }


def renamed(table: Names, old: str, new: str) -> Names:
    """A table with another spelling of a part of its source names."""
    return {source.replace(old, new): target for source, target in table.items()}


def expand(table: Names, num_layers: int, counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """For each target its sources; tensors of a layer stay together, in its order.

    counts: how many tensors a placeholder (``expert``, ...) in a source name stands for.
    """
    once = {source: target for source, target in table.items() if "{}" not in source}
    repeated = {source: target for source, target in table.items() if "{}" in source}
    return {
        target: tuple(_each(source, counts))
        for source, targets in (once | in_layers(repeated, range(num_layers))).items()
        for target in _targets(targets)
    }


def _each(source: str, counts: Mapping[str, int]) -> Iterable[str]:
    place = next((name for name in counts if f"{{{name}}}" in source), None)
    return [source] if place is None else [source.replace(f"{{{place}}}", str(n)) for n in range(counts[place])]


def _numbered(name: str, layer: int) -> str:
    return name.replace("{}", str(layer))


def _targets(target: str | tuple[str, ...]) -> tuple[str, ...]:
    return target if isinstance(target, tuple) else (target,)


def _suffixed(tables: Iterable[Names], suffix: str) -> dict[str, str | tuple[str, ...]]:
    return {
        source + suffix: tuple(name + suffix for name in _targets(target))
        if isinstance(target, tuple)
        else target + suffix
        for table in tables
        for source, target in table.items()
    }
