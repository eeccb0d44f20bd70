"""The models of the conformance sweep: what their tiny configs change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VOCAB = 384


@dataclass(frozen=True)
class Model:
    """One model. ``older``: what its config was called before transformers 5, where the generic rules cannot know it.

    written: what is changed in the config after saving. centred: norms multiply with one more than they store.
    lengths: of the prompts, where the usual ones would not reach what is to be tested.
    """

    model: str
    config: dict[str, Any]
    older: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    centred: bool = False
    lengths: tuple[int, ...] = ()


SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": VOCAB}  # fmt: skip
UNTIED = {**SHAPE, "tie_word_embeddings": False}
MULTI_HEAD = {key: value for key, value in UNTIED.items() if key != "num_key_value_heads"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
HALF_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
QUARTER_ROPE = {**HALF_ROPE, "partial_rotary_factor": 0.25}

MODELS: dict[str, Model] = {
    "gpt_neox": Model("GPTNeoXForCausalLM", {**MULTI_HEAD, "rope_parameters": QUARTER_ROPE},
                      older={"partial_rotary_factor": None, "rotary_pct": 0.25, "rotary_emb_base": 10_000,
                             "rope_theta": None}),
    "gpt_neox_serial": Model("GPTNeoXForCausalLM", {**MULTI_HEAD, "use_parallel_residual": False},
                             older={"rope_theta": None, "partial_rotary_factor": None, "rotary_pct": 0.25}),
    "mixtral": Model("MixtralForCausalLM", {**UNTIED, "num_local_experts": 4, "sliding_window": None}),
    "qwen2_moe": Model("Qwen2MoeForCausalLM", {**UNTIED, **EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3_moe": Model("Qwen3MoeForCausalLM", {**UNTIED, **EXPERTS, "head_dim": 16, "norm_topk_prob": True}),
    "starcoder2": Model("Starcoder2ForCausalLM", {**SHAPE, "sliding_window": None}),
    "stablelm": Model("StableLmForCausalLM", {**UNTIED, "rope_parameters": QUARTER_ROPE,
                      "use_qkv_bias": True}),
    "stablelm2": Model("StableLmForCausalLM", {**UNTIED, "rope_parameters": HALF_ROPE, "qk_layernorm": True,
                       "use_parallel_residual": True}),
    "falcon": Model("FalconForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                    "vocab_size": VOCAB, "multi_query": True, "new_decoder_architecture": False, "alibi": False,
                    "bias": False}),
    "falcon_new": Model("FalconForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "num_kv_heads": 2, "vocab_size": VOCAB, "new_decoder_architecture": True, "alibi": False,
                        "bias": False, "tie_word_embeddings": False}),
    "granite": Model("GraniteForCausalLM", {**SHAPE, "embedding_multiplier": 2.0, "logits_scaling": 1.5,
                     "residual_multiplier": 0.8, "attention_multiplier": 0.3}),
    "granite_moe": Model("GraniteMoeForCausalLM", {**SHAPE, "num_local_experts": 4, "embedding_multiplier": 2.0,
                         "logits_scaling": 1.5, "residual_multiplier": 0.8, "attention_multiplier": 0.3}),
    "glm4": Model("Glm4ForCausalLM", {**UNTIED, "head_dim": 16, "attention_bias": True, "rope_parameters": HALF_ROPE}),
    "olmo3": Model("Olmo3ForCausalLM", {**UNTIED, "num_hidden_layers": 4, "sliding_window": 8}),
}  # fmt: skip
