"""StableLM (3B, Zephyr, 2): layer norms around a gated MLP, a part of each head rotated, optional norms per head."""

from __future__ import annotations

from .. import names, rope
from ..config import Config
from ..gguf import Value
from .family import SILU, Family, layer_norm_metadata
from .qwen2 import BIASED

HEAD_NORMS: names.Names = {
    names.LAYER + "self_attn.q_layernorm.norms.{head}": "blk.{}.attn_q_norm",
    names.LAYER + "self_attn.k_layernorm.norms.{kv_head}": "blk.{}.attn_k_norm",
}


def tensors(config: Config) -> names.Names:
    norms: names.Names = {**names.FINAL_NORM, **names.PRE_NORMS}
    if config.flag("use_parallel_residual"):
        norms = names.without(norms, "ffn_norm")
    plain = (names.EMBEDDING, norms, names.ATTENTION, names.GATED_MLP)
    heads = names.weights(HEAD_NORMS) if config.flag("qk_layernorm") else {}
    biases = names.biases(norms, BIASED) if config.flag("use_qkv_bias") else names.biases(norms)
    return {**names.weights(*plain), **heads, **biases}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **layer_norm_metadata(config),
        **rope.metadata(config.rope),
        "rope.dimension_count": config.rotary_size,
        "use_parallel_residual": config.flag("use_parallel_residual"),
    }


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {
        "attn_q_norm": (config.num_heads, config.head_dim),
        "attn_k_norm": (config.num_kv_heads, config.head_dim),
    }


FAMILY = Family(
    arch="stablelm",
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    model_types=("stablelm", "stablelm_epoch"),
    activations=SILU,
    defaults={
        "hidden_act": "silu", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    partial_rotary=True,
    square=True,
    tied_head=False,
)  # fmt: skip
