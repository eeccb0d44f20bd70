"""GLM-4 (0414): fused gate and up projections, norms before and after each half, half of each head rotated."""

from __future__ import annotations

from .. import names
from ..config import Config
from ..gguf import Value
from .family import SILU, Family, shape_metadata
from .qwen2 import BIASED

FUSED_MLP: names.Names = {
    names.LAYER + "mlp.gate_up_proj": "blk.{}.ffn_up",
    names.LAYER + "mlp.down_proj": "blk.{}.ffn_down",
}
POST_NORMS: names.Names = {
    names.LAYER + "post_self_attn_layernorm": "blk.{}.post_attention_norm",
    names.LAYER + "post_mlp_layernorm": "blk.{}.post_ffw_norm",
}


def tensors(config: Config) -> names.Names:
    biases = names.biases(BIASED) if config.flag("attention_bias") else {}
    return {**names.weights(names.BASE, POST_NORMS, FUSED_MLP), **biases}


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), "rope.dimension_count": config.rotary_size}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"ffn_up": (2 * config.intermediate_size, config.hidden_size)}


FAMILY = Family(
    arch="glm4",
    classes=("Glm4ForCausalLM",),
    model_types=("glm4",),
    activations=SILU,
    defaults={
        "hidden_act": "silu", "rms_norm_eps": 1.5625e-7, "partial_rotary_factor": 0.5, "head_dim": 128,
        "attention_bias": False, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    partial_rotary=True,
)  # fmt: skip
