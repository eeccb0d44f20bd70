"""ModernBERT: rotary positions, norms before each block, gated layers, windows in two of three layers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import heads, names, rope
from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..names import Names
from ..report import Item
from . import bert
from .family import Family, refuse_flags, unsupported

PERIOD = 3
LAYER = "model.layers.{}."
BLOCKS = {
    LAYER + "attn.Wqkv": "blk.{}.attn_qkv",
    LAYER + "attn.Wo": "blk.{}.attn_output",
    LAYER + "mlp_norm": "blk.{}.ffn_norm",
    LAYER + "mlp.Wi": "blk.{}.ffn_up",
    LAYER + "mlp.Wo": "blk.{}.ffn_down",
}
OUTSIDE = {
    "model.embeddings.tok_embeddings": "token_embd",
    "model.embeddings.norm": "token_embd_norm",
    "model.final_norm": "output_norm",
}


def tensors(config: Config) -> Names:
    """The first layer has no norm before its attention: the embedding's serves."""
    norms = {f"model.layers.{layer}.attn_norm": f"blk.{layer}.attn_norm" for layer in range(1, config.num_layers)}
    return names.weights(OUTSIDE, BLOCKS, norms)


def metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {
        **bert.metadata(config),
        **rope.metadata(config.rope),
        "attention.sliding_window": config.count("local_attention", MAX_CONTEXT),
    }
    if config.rope_local is not None:
        keys["rope.freq_base_swa"] = config.rope_local.theta
    pattern = windowed(config)
    if pattern != [layer % PERIOD != 0 for layer in range(config.num_layers)]:
        keys["attention.sliding_window_pattern"] = np.array(pattern)
    if config.activation == "silu":
        keys["hidden_activation"] = "silu"
    return keys


def windowed(config: Config) -> list[bool]:
    """For each layer, whether it sees only its window; the first of each period sees all."""
    types = config.get("layer_types")
    if isinstance(types, list) and len(types) == config.num_layers:
        return [kind == "sliding_attention" for kind in types]
    period = config.count("global_attn_every_n_layers", 1 << 10, PERIOD)
    return [layer % period != 0 for layer in range(config.num_layers)]


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {"ffn_up": (2 * config.intermediate_size, config.hidden_size)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "norm_bias", "attention_bias", "mlp_bias")
    if config.rope_local is not None and (why := rope.problem(config.rope_local, frozenset({"default"}))):
        yield Item("rope", "fail", f"the windowed layers' {why}")
    if config.get("sliding_window") not in (None, config.get("local_attention") // 2):
        yield unsupported("sliding_window beside local_attention", config.get("sliding_window"))


FAMILY = Family(
    arch="modern-bert",
    classes=("ModernBertModel", *heads.classes(("ModernBert",))),
    model_types=("modernbert",),
    activations=("gelu", "silu"),
    defaults={
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
        "local_attention": 128, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0, "decoder_bias": True,
        "classifier_activation": "gelu", "classifier_pooling": "cls", "tie_word_embeddings": True,
    },
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    dropped={},
    limits=limits,
    rope_types=frozenset({"default"}),
    head="",
    embedding="model.embeddings.tok_embeddings.weight",
    square=True,
)  # fmt: skip
