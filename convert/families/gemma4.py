"""Gemma 4: two sizes of heads, layers that share keys and values, an own small embedding for each layer; or experts
beside each MLP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import names
from ..config import MAX_CONTEXT, Config, number
from ..gguf import Value
from ..report import Item
from . import gemma
from .family import VISION_DROPPED, expert_metadata, shape_metadata, unsupported, windowed_layers

LAYER = names.LAYER
QUERY: names.Names = {
    **names.only(names.ATTENTION, "attn_q", "attn_output"),
    **names.only(names.QUERY_KEY_NORMS, "attn_q_norm"),
}
KEY: names.Names = {**names.only(names.ATTENTION, "attn_k"), **names.only(names.QUERY_KEY_NORMS, "attn_k_norm")}
VALUE: names.Names = names.only(names.ATTENTION, "attn_v")
PER_LAYER: names.Names = {
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
    LAYER + "per_layer_input_gate": "blk.{}.inp_gate",
    LAYER + "per_layer_projection": "blk.{}.proj",
    LAYER + "post_per_layer_input_norm": "blk.{}.post_norm",
}
EXPERTS: names.Names = {
    LAYER + "router.proj.weight": "blk.{}.ffn_gate_inp.weight",
    LAYER + "router.scale": "blk.{}.ffn_gate_inp.scale",
    LAYER + "router.per_expert_scale": "blk.{}.ffn_down_exps.scale",
    LAYER + "experts.gate_up_proj": "blk.{}.ffn_gate_up_exps.weight",
    LAYER + "experts.down_proj": "blk.{}.ffn_down_exps.weight",
    LAYER + "pre_feedforward_layernorm_2.weight": "blk.{}.pre_ffw_norm_2.weight",
    LAYER + "post_feedforward_layernorm_1.weight": "blk.{}.post_ffw_norm_1.weight",
    LAYER + "post_feedforward_layernorm_2.weight": "blk.{}.post_ffw_norm_2.weight",
}
SCALE: names.Names = {LAYER + "layer_scalar": "blk.{}.layer_output_scale.weight"}
# A frequency divided by this does not turn.
STILL = 1e30


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of full layers, which newer files keep layer by layer."""
    layers, kinds = values.get("per_layer_config"), values.get("layer_types")
    found: dict[str, Any] = {}
    if isinstance(layers, dict) and isinstance(kinds, list):
        full = [layers.get(str(n)) for n, kind in enumerate(kinds) if kind == "full_attention"]
        own = next((layer for layer in full if isinstance(layer, dict)), {})
        found |= {"global_head_dim": own.get("head_dim"), "num_global_key_value_heads": own.get("num_key_value_heads")}
    return {key: value for key, value in found.items() if value is not None and values.get(key) is None}


def windowed(config: Config) -> list[bool]:
    return windowed_layers(config, [(layer + 1) % 6 != 0 for layer in config.layers])


def full_head(config: Config) -> int:
    return config.count("global_head_dim", 1 << 14, config.head_dim)


def full_kv_heads(config: Config) -> int:
    return config.count("num_global_key_value_heads", 1 << 10, config.num_kv_heads)


def with_keys(config: Config) -> list[int]:
    """The layers that have keys and values of their own: all but the last ``num_kv_shared_layers``."""
    return list(range(config.num_layers - int(config.get("num_kv_shared_layers", 0))))


def per_layer_size(config: Config) -> int:
    return int(config.get("hidden_size_per_layer_input", 0))


def tensors(config: Config) -> names.Names:
    windows, own = windowed(config), with_keys(config)
    values = [layer for layer in own if windows[layer] or not config.flag("attention_k_eq_v")]
    plain = (names.EMBEDDING, names.FINAL_NORM, names.SANDWICH_NORMS, QUERY, names.GATED_MLP)
    return {
        **names.weights(*plain, PER_LAYER if per_layer_size(config) else {}),
        **names.in_layers(names.weights(KEY), own),
        **names.in_layers(names.weights(VALUE), values),
        **SCALE,
        **(EXPERTS if config.flag("enable_moe_block") else {}),
    }


def metadata(config: Config) -> dict[str, Value]:
    windows = windowed(config)
    keys: dict[str, Value] = {
        **shape_metadata(config),
        "attention.head_count_kv": np.array(
            [config.num_kv_heads if window else full_kv_heads(config) for window in windows], np.int32
        ),
        "feed_forward_length": np.array([mlp_size(config, layer) for layer in config.layers], np.int32),
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
        "attention.sliding_window_pattern": np.array(windows),
        "attention.shared_kv_layers": int(config.get("num_kv_shared_layers", 0)),
        "embedding_length_per_layer_input": per_layer_size(config),
        **dict.fromkeys(("attention.key_length", "attention.value_length"), full_head(config)),
        **dict.fromkeys(("attention.key_length_swa", "attention.value_length_swa"), config.head_dim),
        "rope.dimension_count": full_head(config),
        "rope.dimension_count_swa": config.head_dim,
    }
    if config.flag("enable_moe_block"):
        keys |= {**expert_metadata(config), "expert_feed_forward_length": config.expert_size}
    if config.rope_local is not None:
        keys["rope.freq_base_swa"] = config.rope_local.theta
    if config.get("final_logit_softcapping") is not None:
        keys["final_logit_softcapping"] = number(config.values, "final_logit_softcapping")
    return keys


def mlp_size(config: Config, layer: int) -> int:
    wide = config.flag("use_double_wide_mlp") and layer not in with_keys(config)
    return config.intermediate_size * (2 if wide else 1)


def computed(config: Config) -> dict[str, NDArray[np.float32]]:
    """Full layers turn the first part of each half of a head; the rest keeps still."""
    half = full_head(config) // 2
    turned = int(full_head(config) * config.rope.partial_factor / 2)
    return {"rope_freqs.weight": np.where(np.arange(half) < turned, 1.0, STILL).astype(np.float32)}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, small = config.hidden_size, per_layer_size(config)
    found: dict[str, tuple[int, ...]] = {
        "per_layer_token_embd": (config.count("vocab_size_per_layer_input", 1 << 21, config.vocab_size),
                                 small * config.num_layers),
        "per_layer_model_proj": (small * config.num_layers, hidden),
        "per_layer_proj_norm": (small,),
        "inp_gate": (small, hidden),
        "proj": (hidden, small),
        "post_norm": (hidden,),
        "layer_output_scale": (1,),
        "ffn_gate_inp.scale": (hidden,),
        "ffn_down_exps.scale": (config.num_experts,),
        "ffn_gate_up_exps": (config.num_experts, 2 * config.expert_size, hidden),
        **dict.fromkeys(("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"), (hidden,)),
    }  # fmt: skip
    for layer, window in enumerate(windowed(config)):
        head = config.head_dim if window else full_head(config)
        kv_heads = config.num_kv_heads if window else full_kv_heads(config)
        inner = mlp_size(config, layer)
        own = {
            "attn_q": (config.num_heads * head, hidden),
            "attn_k": (kv_heads * head, hidden),
            "attn_v": (kv_heads * head, hidden),
            "attn_output": (hidden, config.num_heads * head),
            "attn_q_norm": (head,),
            "attn_k_norm": (head,),
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
        }
        found |= {f"blk.{layer}.{name}": shape for name, shape in own.items()}
    return found


def limits(config: Config) -> Iterator[Item]:
    yield from gemma.limits(config)
    own = [windowed(config)[layer] for layer in with_keys(config)]
    if len(own) < config.num_layers and own[-2:] != [True, False]:
        # llama.cpp takes them from the last two layers that have some, whatever their kinds.
        yield unsupported("num_kv_shared_layers", config.get("num_kv_shared_layers"))


FAMILY = replace(
    gemma.FAMILY,
    arch="gemma4",
    classes=("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"),
    model_types=("gemma4_text", "gemma4"),
    activations=("gelu_pytorch_tanh",),
    defaults={
        "hidden_activation": "gelu_pytorch_tanh", "head_dim": 256, "sliding_window": 512,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "tie_word_embeddings": True,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=lambda config: {},
    computed=computed,
    shapes=shapes,
    dropped={**VISION_DROPPED, r"(model\.)?(audio_tower|embed_(vision|audio))\..*": "for images and sound"},
    limits=limits,
    rope_types=frozenset({"default", "proportional"}),
    partial_rotary=True,
)  # fmt: skip
