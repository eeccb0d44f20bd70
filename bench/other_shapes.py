"""Shapes of models that are not Llama's: sliding windows, recurrent layers, experts. For the memory they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Shapes = Iterator[tuple[str, tuple[int, ...]]]
ROPE = {"rope_theta": 1e6, "rope_type": "default"}
VOCABULARY = 65_536
COMMON = {"bos_token_id": 0, "eos_token_id": 2, "dtype": "float16", "vocab_size": VOCABULARY}


@dataclass(frozen=True)
class Other:
    """A checkpoint by its config, and by name and shape (output rows first) of each tensor."""

    config: Mapping[str, Any]
    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def vocabulary(self) -> int:
        return int(self.config["vocab_size"])


def gemma() -> Other:
    """Gemma 3 270M's, with a quarter of its vocabulary."""
    hidden, wide, heads, kv, size, layers = 640, 2048, 4, 1, 256, 18
    kinds = ["full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(layers)]
    config = {
        **COMMON,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": size,
        "query_pre_attn_scalar": size,
        "layer_types": kinds,
        "sliding_window": 512,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": ROPE,
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    }

    def tensors() -> Shapes:
        yield from ends(hidden)
        for layer in range(layers):
            block = f"model.layers.{layer}"
            norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm")
            for norm in (*norms, "post_feedforward_layernorm"):
                yield f"{block}.{norm}.weight", (hidden,)
            yield from attention(f"{block}.self_attn", hidden, heads * size, kv * size)
            yield f"{block}.self_attn.q_norm.weight", (size,)
            yield f"{block}.self_attn.k_norm.weight", (size,)
            yield from gated(f"{block}.mlp", ("gate_proj", "down_proj", "up_proj"), hidden, wide)

    return Other(config, tuple(tensors()))


def lfm() -> Other:
    """LFM2 350M's: of 16 layers 6 attend, the others are short convolutions."""
    hidden, wide, heads, kv, layers = 1024, 4608, 16, 8, 16
    attending = {2, 5, 8, 10, 12, 14}
    config = {
        **COMMON,
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "block_auto_adjust_ff_dim": False,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "layer_types": ["full_attention" if layer in attending else "conv" for layer in range(layers)],
        "conv_L_cache": 3,
        "conv_bias": False,
        "max_position_embeddings": 32768,
        "norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_parameters": ROPE,
    }

    def tensors() -> Shapes:
        yield "model.embed_tokens.weight", (VOCABULARY, hidden)
        yield "model.embedding_norm.weight", (hidden,)
        for layer in range(layers):
            block = f"model.layers.{layer}"
            yield f"{block}.operator_norm.weight", (hidden,)
            yield f"{block}.ffn_norm.weight", (hidden,)
            yield from gated(f"{block}.feed_forward", ("w1", "w2", "w3"), hidden, wide)
            if layer in attending:
                yield from attention(f"{block}.self_attn", hidden, hidden, hidden // heads * kv, out="out_proj")
                yield f"{block}.self_attn.q_layernorm.weight", (hidden // heads,)
                yield f"{block}.self_attn.k_layernorm.weight", (hidden // heads,)
            else:
                yield f"{block}.conv.conv.weight", (hidden, 1, 3)
                yield f"{block}.conv.in_proj.weight", (3 * hidden, hidden)
                yield f"{block}.conv.out_proj.weight", (hidden, hidden)

    return Other(config, tuple(tensors()))


def mixtral() -> Other:
    """Nobody's: 8 experts, of which 2 work on a token."""
    hidden, wide, heads, kv, layers, experts = 512, 1024, 8, 2, 12, 8
    config = {
        **COMMON,
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "num_local_experts": experts,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "sliding_window": None,
        "tie_word_embeddings": False,
        "rope_parameters": ROPE,
    }

    def tensors() -> Shapes:
        yield from ends(hidden)
        yield "lm_head.weight", (VOCABULARY, hidden)
        for layer in range(layers):
            block = f"model.layers.{layer}"
            yield f"{block}.input_layernorm.weight", (hidden,)
            yield f"{block}.post_attention_layernorm.weight", (hidden,)
            yield from attention(f"{block}.self_attn", hidden, hidden, hidden // heads * kv)
            yield f"{block}.block_sparse_moe.gate.weight", (experts, hidden)
            for expert in range(experts):
                place = f"{block}.block_sparse_moe.experts.{expert}"
                yield from gated(place, ("w1", "w2", "w3"), hidden, wide)

    return Other(config, tuple(tensors()))


def ends(hidden: int) -> Shapes:
    yield "model.embed_tokens.weight", (VOCABULARY, hidden)
    yield "model.norm.weight", (hidden,)


def attention(place: str, hidden: int, queries: int, keys: int, out: str = "o_proj") -> Shapes:
    yield f"{place}.q_proj.weight", (queries, hidden)
    yield f"{place}.k_proj.weight", (keys, hidden)
    yield f"{place}.v_proj.weight", (keys, hidden)
    yield f"{place}.{out}.weight", (hidden, queries)


def gated(place: str, names: tuple[str, str, str], hidden: int, wide: int) -> Shapes:
    """``names``: of the gate, of the way down, of the way up."""
    gate, down, up = names
    yield f"{place}.{gate}.weight", (wide, hidden)
    yield f"{place}.{down}.weight", (hidden, wide)
    yield f"{place}.{up}.weight", (wide, hidden)


OTHERS: Mapping[str, Other] = MappingProxyType({"gemma-3-270m": gemma(), "lfm2-350m": lfm(), "mixtral-tiny": mixtral()})
