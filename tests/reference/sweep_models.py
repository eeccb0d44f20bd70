"""The models of the conformance sweep: what their tiny configs change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VOCAB = 384


@dataclass(frozen=True)
class Model:
    """One model. ``older``: what its config was called before transformers 5, where the generic rules cannot know it.

    written: what is changed in the config after saving. centred: norms multiply with one more than they store.
    lengths: of the prompts, where the usual ones would not reach what is to be tested. beside: files that are needed,
    and the checkpoint of tests/vision/ that has them.
    """

    model: str
    config: dict[str, Any]
    older: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    centred: bool = False
    lengths: tuple[int, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)


SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": VOCAB}  # fmt: skip
UNTIED = {**SHAPE, "tie_word_embeddings": False}
MULTI_HEAD = {key: value for key, value in UNTIED.items() if key != "num_key_value_heads"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SIGMOID_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1,
                   "topk_group": 1, "n_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
                   "num_hidden_layers": 3}  # fmt: skip
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
DEEPSEEK_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "beta_fast": 32, "beta_slow": 1,
                 "mscale": 0.707, "mscale_all_dim": 0.707, "original_max_position_embeddings": 32}  # fmt: skip
DELTA = {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
         "linear_value_head_dim": 8, "num_hidden_layers": 3,
         "layer_types": ["linear_attention", "full_attention", "linear_attention"]}  # fmt: skip
HALF_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
QUARTER_ROPE = {**HALF_ROPE, "partial_rotary_factor": 0.25}
SECTIONED_ROPE = {**QUARTER_ROPE, "mrope_section": [1, 1, 0], "mrope_interleaved": True}
PICTURES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14}  # fmt: skip
QWEN_PICTURES = {"hidden_size": 16, "intermediate_size": 16, "depth": 1, "num_heads": 2, "out_hidden_size": 32,
                 "num_position_embeddings": 16, "deepstack_visual_indexes": []}  # fmt: skip

MODELS: dict[str, Model] = {
    "gpt_neox": Model("GPTNeoXForCausalLM", {**MULTI_HEAD, "rope_parameters": QUARTER_ROPE},
                      older={"partial_rotary_factor": None, "rotary_pct": 0.25, "rotary_emb_base": 10_000,
                             "rope_theta": None}),
    "gpt_neox_serial": Model("GPTNeoXForCausalLM", {**MULTI_HEAD, "use_parallel_residual": False},
                             older={"rope_theta": None, "partial_rotary_factor": None, "rotary_pct": 0.25}),
    "mixtral": Model("MixtralForCausalLM", {**UNTIED, "num_local_experts": 4, "sliding_window": None}),
    "qwen2": Model("Qwen2ForCausalLM", {**UNTIED, "use_sliding_window": False}),
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
    "granite_moe_shared": Model("GraniteMoeSharedForCausalLM", {**SHAPE, "num_local_experts": 4,
                                "shared_intermediate_size": 24, "embedding_multiplier": 2.0, "logits_scaling": 1.5,
                                "residual_multiplier": 0.8, "attention_multiplier": 0.3}),
    "glm4": Model("Glm4ForCausalLM", {**UNTIED, "head_dim": 16, "attention_bias": True, "rope_parameters": HALF_ROPE}),
    "olmo3": Model("Olmo3ForCausalLM", {**UNTIED, "num_hidden_layers": 4, "sliding_window": 8},
                   older={"rope_parameters": None, "rope_theta": 500_000.0}),
    "ministral3": Model("Ministral3ForCausalLM", {**UNTIED, "head_dim": 16, "rope_parameters": {
                        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
                        "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16,
                        "llama_4_scaling_beta": 0.1}}),
    "lfm2": Model("Lfm2ForCausalLM", {**SHAPE, "layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
                  older={"layer_types": None, "full_attn_idxs": [1]}),
    "lfm2_moe": Model("Lfm2MoeForCausalLM", {**SHAPE, **EXPERTS, "num_hidden_layers": 3, "num_dense_layers": 1,
                      "layer_types": ["conv", "full_attention", "conv"]}),
    "mamba": Model("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCAB,
                   "state_size": 8}),
    "falcon_mamba": Model("FalconMambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCAB,
                          "state_size": 8, "tie_word_embeddings": False}),
    "mamba2": Model("Mamba2ForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCAB,
                    "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1}),
    "cohere": Model("CohereForCausalLM", {**SHAPE, "logit_scale": 0.5}),
    "cohere2": Model("Cohere2ForCausalLM", {**SHAPE, "num_hidden_layers": 4, "sliding_window": 8, "logit_scale": 0.5}),
    "phi": Model("PhiForCausalLM", {**UNTIED, "rope_parameters": HALF_ROPE}),
    "bloom": Model("BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCAB}),
    "mpt": Model("MptForCausalLM", {"d_model": 32, "n_layers": 2, "n_heads": 4, "vocab_size": VOCAB,
                 "max_seq_len": 128}),
    "olmo": Model("OlmoForCausalLM", {**UNTIED, "clip_qkv": 1.5}),
    "olmoe": Model("OlmoeForCausalLM", {**MULTI_HEAD, "num_experts": 4, "num_experts_per_tok": 2}),
    "nemotron": Model("NemotronForCausalLM", {**UNTIED, "rope_parameters": HALF_ROPE}, centred=True),
    "exaone4": Model("Exaone4ForCausalLM", {**UNTIED, "sliding_window": None, "sliding_window_pattern": None,
                     "layer_types": ["full_attention"] * 2}),
    "ernie4_5": Model("Ernie4_5ForCausalLM", {**SHAPE, "head_dim": 16}),
    "ernie4_5_moe": Model("Ernie4_5_MoeForCausalLM", {**SHAPE, "moe_num_experts": 4, "moe_k": 2,
                          "moe_intermediate_size": 16, "moe_layer_start_index": 1, "num_hidden_layers": 3}),
    "hunyuan_dense": Model("HunYuanDenseV1ForCausalLM", {**UNTIED, "head_dim": 16}),
    "seed_oss": Model("SeedOssForCausalLM", {**UNTIED, "head_dim": 16}),
    "arcee": Model("ArceeForCausalLM", UNTIED),
    "glm": Model("GlmForCausalLM", {**UNTIED, "head_dim": 8, "attention_bias": True, "rope_parameters": HALF_ROPE}),
    "glm4_moe": Model("Glm4MoeForCausalLM", {**UNTIED, **SIGMOID_EXPERTS, "head_dim": 16, "use_qk_norm": True,
                      "attention_bias": True, "rope_parameters": HALF_ROPE, "num_nextn_predict_layers": 0}),
    "dots1": Model("Dots1ForCausalLM", {**MULTI_HEAD, **SIGMOID_EXPERTS, "num_key_value_heads": 4}),
    "gpt_bigcode": Model("GPTBigCodeForCausalLM", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48,
                         "n_positions": 128, "vocab_size": VOCAB}),
    "jais2": Model("Jais2ForCausalLM", {**UNTIED, "head_dim": 8}),
    "deepseek_v2": Model("DeepseekV2ForCausalLM", {**MULTI_HEAD, **SIGMOID_EXPERTS, **LATENT, "num_key_value_heads": 4,
                         "topk_method": "greedy", "rope_parameters": DEEPSEEK_YARN}),
    "deepseek_v3": Model("DeepseekV3ForCausalLM", {**MULTI_HEAD, **SIGMOID_EXPERTS, **LATENT, "num_key_value_heads": 4,
                         "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "norm_topk_prob": True,
                         "num_nextn_predict_layers": 0, "rope_parameters": {**DEEPSEEK_YARN, "mscale": 1.0,
                                                                            "mscale_all_dim": 1.0}}),
    "gpt_oss": Model("GptOssForCausalLM", {**UNTIED, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
                     "sliding_window": 8, "rope_parameters": {
                         "rope_type": "yarn", "rope_theta": 150_000.0, "factor": 4.0, "beta_fast": 32.0,
                         "beta_slow": 1.0, "original_max_position_embeddings": 32, "truncate": True}}),
    "qwen3_next": Model("Qwen3NextForCausalLM", {**UNTIED, **EXPERTS, **DELTA, "shared_expert_intermediate_size": 24,
                        "norm_topk_prob": True}, centred=True),
    "qwen3_5": Model("Qwen3_5ForCausalLM", {**UNTIED, **DELTA, "rope_parameters": SECTIONED_ROPE}, centred=True),
    "qwen3_5_moe": Model("Qwen3_5MoeForCausalLM", {**UNTIED, **EXPERTS, **DELTA, "rope_parameters": SECTIONED_ROPE,
                         "shared_expert_intermediate_size": 24}, centred=True),
    "gemma4": Model("Gemma4ForCausalLM", {**SHAPE, "num_hidden_layers": 5, "head_dim": 8, "global_head_dim": 16,
                    "vocab_size_per_layer_input": VOCAB, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 2,
                    "use_double_wide_mlp": True, "sliding_window": 8, "final_logit_softcapping": 30.0,
                    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                                    "full_attention"]},
                    older={"per_layer_config": None, "global_head_dim": 16}),
    "gemma4_moe": Model("Gemma4ForCausalLM", {**SHAPE, "num_hidden_layers": 3, "head_dim": 8, "global_head_dim": 16,
                        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "enable_moe_block": True,
                        "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16, "sliding_window": 8,
                        "attention_k_eq_v": True, "num_global_key_value_heads": 1,
                        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
                        older={"per_layer_config": None, "global_head_dim": 16, "num_global_key_value_heads": 1}),
    "gemma4_vision": Model("Gemma4ForConditionalGeneration", {"text_config": {
                           **SHAPE, "num_hidden_layers": 3, "head_dim": 8, "global_head_dim": 16, "sliding_window": 8,
                           "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
                           "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
                           "vision_config": {**PICTURES, "head_dim": 8, "num_key_value_heads": 2}}),
    "mistral3_vision": Model("Mistral3ForConditionalGeneration", {
                             "text_config": {"model_type": "mistral", **UNTIED, "head_dim": 16, "sliding_window": None},
                             "vision_config": {"model_type": "pixtral", **PICTURES}}),
    "qwen3_5_vision": Model("Qwen3_5ForConditionalGeneration", {
                            "text_config": {**UNTIED, **DELTA, "rope_parameters": SECTIONED_ROPE},
                            "vision_config": QWEN_PICTURES}, centred=True),
    "qwen3_5_moe_vision": Model("Qwen3_5MoeForConditionalGeneration", {
                                "text_config": {**UNTIED, **EXPERTS, **DELTA, "rope_parameters": SECTIONED_ROPE,
                                                "shared_expert_intermediate_size": 24},
                                "vision_config": QWEN_PICTURES}, centred=True),
    **{name: Model(f"{kind}ForConditionalGeneration", {
                       "text_config": {"model_type": "llama", **UNTIED}, "tie_word_embeddings": False,
                       "vision_config": {**PICTURES, "hidden_size": 32, "image_size": 32, "patch_size": 8},
                       "scale_factor": 2},
                       beside={"processor_config.json": "smolvlm"})
       for name, kind in (("smolvlm", "SmolVLM"), ("idefics3", "Idefics3"))},
    "qwen2_5_vl": Model("Qwen2_5_VLForConditionalGeneration", {
                        "text_config": {**UNTIED, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0,
                                                                      "mrope_section": [1, 1, 2]}},
                        "vision_config": {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2,
                                          "out_hidden_size": 32, "fullatt_block_indexes": [1]},
                        "tie_word_embeddings": False}, beside={"preprocessor_config.json": "qwen2_5_vl"}),
}  # fmt: skip
