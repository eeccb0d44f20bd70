"""GPT-NeoX and Pythia: fused query, key and value head by head; attention and MLP side by side."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import regroup
from .family import CAUSAL_DROPPED, GELU, Family, Transform, layer_norm_metadata, refuse_values

LAYER = "gpt_neox.layers.{}."
NAMES: names.Names = {
    "gpt_neox.final_layer_norm": "output_norm",
    LAYER + "input_layernorm": "blk.{}.attn_norm",
    LAYER + "post_attention_layernorm": "blk.{}.ffn_norm",
    LAYER + "attention.query_key_value": "blk.{}.attn_qkv",
    LAYER + "attention.dense": "blk.{}.attn_output",
    LAYER + "mlp.dense_h_to_4h": "blk.{}.ffn_up",
    LAYER + "mlp.dense_4h_to_h": "blk.{}.ffn_down",
}


def tensors(config: Config) -> names.Names:
    return {**names.weights({"gpt_neox.embed_in": "token_embd"}, NAMES), **names.biases(NAMES)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **layer_norm_metadata(config),
        **rope.metadata(config.rope),
        "rope.dimension_count": config.rotary_size,
        "use_parallel_residual": bool(config.get("use_parallel_residual", True)),
    }


def transforms(config: Config) -> dict[str, Transform]:
    heads = [config.head_dim] * 3
    return {r".*\.attn_qkv\..*": lambda rows: regroup(rows, heads, config.num_heads, 0, 1, 2)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_values(config, attention_bias=True)


FAMILY = Family(
    arch="gptneox",
    classes=("GPTNeoXForCausalLM",),
    model_types=("gpt_neox",),
    activations=GELU,
    defaults={"hidden_act": "gelu", "rotary_pct": 0.25, "layer_norm_eps": 1e-5, "tie_word_embeddings": False},
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    dropped={**CAUSAL_DROPPED, r".*\.attention\.rotary_emb\.inv_freq": "computed from rope_theta"},
    limits=limits,
    partial_rotary=True,
    root="gpt_neox.",
    head="embed_out.weight",
    embedding="gpt_neox.embed_in.weight",
    square=True,
    tied_head=False,
)
