"""DeepSeek V2 and V3 (R1): keys and values compressed together, experts in groups after the first dense layers.

llama.cpp attends in the compressed space, so that there is one key-value head; the matrix that decompresses keys is
stored transposed, apart from that of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, regroup, reshape, transpose
from . import glm4_moe, llama
from .family import ROPE_TYPES, SIGMOID, SOFTMAX, Transform, refuse_flags, refuse_values, shape_metadata, unsupported

ATTN = names.LAYER + "self_attn."
LATENT: names.Names = {
    ATTN + "kv_a_proj_with_mqa": "blk.{}.attn_kv_a_mqa",
    ATTN + "kv_a_layernorm": "blk.{}.attn_kv_a_norm",
    ATTN + "kv_b_proj": ("blk.{}.attn_k_b", "blk.{}.attn_v_b"),
    ATTN + "o_proj": "blk.{}.attn_output",
}
COMPRESSED_QUERY: names.Names = {
    ATTN + "q_a_proj": "blk.{}.attn_q_a",
    ATTN + "q_a_layernorm": "blk.{}.attn_q_a_norm",
    ATTN + "q_b_proj": "blk.{}.attn_q_b",
}
QUERY: names.Names = {ATTN + "q_proj": "blk.{}.attn_q"}
V3 = "deepseek_v3"
# llama.cpp knows models with an uncompressed query by their layers.
LITE_LAYERS = (26, 27)


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The rotated part is a head of its own. Keys and values are never shared between heads."""
    return {
        **glm4_moe.derived(values),
        "head_dim": values.get("qk_rope_head_dim"),
        "num_key_value_heads": values.get("num_attention_heads"),
    }


def size(config: Config, key: str) -> int:
    return config.count(key, 1 << 16)


def tensors(config: Config) -> names.Names:
    query = COMPRESSED_QUERY if config.get("q_lora_rank") else QUERY
    choice = glm4_moe.CHOICE if config.get("model_type") == V3 else {}
    experts = {**names.weights(names.EXPERTS, glm4_moe.SHARED), **choice}
    plain = (names.EMBEDDING, names.FINAL_NORM, names.PRE_NORMS, LATENT, query)
    return {**names.weights(*plain), **glm4_moe.mlps(config, experts)}


def metadata(config: Config) -> dict[str, Value]:
    latent, rotated = size(config, "kv_lora_rank"), size(config, "qk_rope_head_dim")
    v3 = config.get("model_type") == V3
    keys: dict[str, Value] = {
        **shape_metadata(config),
        **glm4_moe.sigmoid_experts(config),
        "vocab_size": config.vocab_size,
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": latent,
        "attention.key_length": latent + rotated,
        "attention.value_length": latent,
        "attention.key_length_mla": size(config, "qk_nope_head_dim") + rotated,
        "attention.value_length_mla": size(config, "v_head_dim"),
        "rope.dimension_count": rotated,
        "expert_gating_func": SIGMOID if v3 else SOFTMAX,
        "expert_weights_norm": v3 and config.flag("norm_topk_prob"),
    }
    if config.get("q_lora_rank"):
        keys["attention.q_lora_rank"] = size(config, "q_lora_rank")
    if config.rope.type == "yarn":
        # llama.cpp scales attention by this, and cancels what it would scale the embedding by.
        keys.pop("rope.scaling.attn_factor", None)
        keys["rope.scaling.yarn_log_multiplier"] = 0.1 * float(config.rope.scaling["mscale_all_dim"])
    return keys


def transforms(config: Config) -> dict[str, Transform]:
    heads, latent = config.num_heads, size(config, "kv_lora_rank")
    parts = (size(config, "qk_nope_head_dim"), size(config, "v_head_dim"))

    def keys(rows: Rows) -> Rows:
        return transpose(reshape(regroup(rows, parts, heads, 0), (heads, parts[0], latent)))

    def values(rows: Rows) -> Rows:
        return reshape(regroup(rows, parts, heads, 1), (heads, parts[1], latent))

    return {r".*\.attn_k_b\.weight": keys, r".*\.attn_v_b\.weight": values}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, heads, latent = config.hidden_size, config.num_heads, size(config, "kv_lora_rank")
    plain, rotated = size(config, "qk_nope_head_dim"), size(config, "qk_rope_head_dim")
    value, query = size(config, "v_head_dim"), heads * (plain + rotated)
    compressed = int(config.get("q_lora_rank", 0))
    return {
        "attn_kv_a_mqa": (latent + rotated, hidden),
        "attn_kv_a_norm": (latent,),
        "attn_k_b": (heads, latent, plain),
        "attn_v_b": (heads, value, latent),
        "attn_output": (hidden, heads * value),
        "attn_q": (query, hidden),
        "attn_q_a": (compressed, hidden),
        "attn_q_a_norm": (compressed,),
        "attn_q_b": (query, compressed),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    yield from refuse_values(config, moe_layer_freq=1, rope_interleave=True)
    if (
        config.get("model_type") != V3
        and config.get("topk_method", "greedy") != "greedy"
        and config.get("n_group") != 1
    ):
        yield unsupported("topk_method", config.get("topk_method"))
    if not config.get("q_lora_rank") and config.num_layers not in LITE_LAYERS:
        yield unsupported("q_lora_rank", None)
    scaling = config.rope.scaling
    if config.rope.type == "yarn" and (
        not scaling.get("mscale_all_dim") or scaling.get("mscale", 1.0) != scaling["mscale_all_dim"]
    ):
        yield unsupported("mscale_all_dim", scaling.get("mscale_all_dim"))


FAMILY = replace(
    llama.FAMILY,
    arch="deepseek2",
    classes=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    model_types=("deepseek_v2", V3),
    defaults={
        **llama.FAMILY.defaults, "first_k_dense_replace": 0, "n_shared_experts": 1, "routed_scaling_factor": 1.0,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    computed=lambda config: {},
    shapes=shapes,
    limits=limits,
    rope_types=ROPE_TYPES - {"linear"},
    surplus_layers=glm4_moe.PREDICTION,
)  # fmt: skip
