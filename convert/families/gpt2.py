"""GPT-2: learned positions, layer norms with biases, projections stored as (in, out)."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import Config, number
from ..gguf import Value
from ..report import Item
from ..transforms import transpose
from .family import Family, Transform, refuse_flags, unsupported


def tensors(config: Config) -> names.Names:
    return {**names.weights(names.GPT2_EMBEDDINGS, names.GPT2), **names.biases(names.GPT2)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.layer_norm_epsilon": number(config.values, "layer_norm_eps"),
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight": transpose}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"position_embd": (config.context_length, config.hidden_size)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "scale_attn_by_inverse_layer_idx", "add_cross_attention")
    if config.get("scale_attn_weights", True) is False:
        yield unsupported("scale_attn_weights", False)


FAMILY = Family(
    arch="gpt2",
    classes=("GPT2LMHeadModel",),
    model_types=("gpt2",),
    activations=("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    defaults={
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    dropped={r".*\.attn\.(bias|masked_bias)": "a causal mask, not a weight"},
    limits=limits,
    root="transformer.",
    embedding="transformer.wte.weight",
    conv1d=r".*\.(c_attn|c_proj|c_fc)\.weight",
    square=True,
)  # fmt: skip
