"""Mamba 2, as transformers saves it: no attention, a state per head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import names
from ..config import Config, number
from ..gguf import Value
from ..report import Item
from ..transforms import column, negative_exp, reshape, squeeze
from .family import SILU, Family, Transform, refuse_flags, refuse_values

LAYER = "backbone.layers.{}."
MATRICES: names.Names = {
    "backbone.embeddings": "token_embd",
    "backbone.norm_f": "output_norm",
    LAYER + "norm": "blk.{}.attn_norm",
    LAYER + "mixer.in_proj": "blk.{}.ssm_in",
    LAYER + "mixer.conv1d": "blk.{}.ssm_conv1d",
    LAYER + "mixer.out_proj": "blk.{}.ssm_out",
}
STATE: names.Names = {
    LAYER + "mixer.conv1d.bias": "blk.{}.ssm_conv1d.bias",
    LAYER + "mixer.A_log": "blk.{}.ssm_a",
    LAYER + "mixer.D": "blk.{}.ssm_d",
}
# A state has no longest context; this is what llama.cpp is told.
CONTEXT = 1 << 20


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """A model without attention has one "head" of everything."""
    hidden, expand = values.get("hidden_size"), values.get("expand", 2)
    inner = int(hidden * expand) if isinstance(hidden, int) and isinstance(expand, int | float) else None
    return {
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "intermediate_size": inner,
        "max_position_embeddings": values.get("max_position_embeddings") or CONTEXT,
    }


def groups(config: Config) -> int:
    return config.count("n_groups", 1 << 10)


def state_metadata(config: Config) -> dict[str, Value]:
    return {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": number(config.values, "rms_norm_eps"),
        "ssm.conv_kernel": config.count("conv_kernel", 1 << 10),
        "ssm.inner_size": config.intermediate_size,
        "ssm.state_size": config.count("state_size", 1 << 16),
    }


def tensors(config: Config) -> names.Names:
    heads: names.Names = {
        LAYER + "mixer.dt_bias": "blk.{}.ssm_dt.bias",
        LAYER + "mixer.norm.weight": "blk.{}.ssm_norm.weight",
    }
    return {**names.weights(MATRICES), **STATE, **heads}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **state_metadata(config),
        "ssm.time_step_rank": config.count("num_heads", 1 << 16),
        "ssm.group_count": groups(config),
    }


def transforms(config: Config) -> dict[str, Transform]:
    norm = (groups(config), config.intermediate_size // groups(config))
    return {
        r".*\.ssm_conv1d\.weight": squeeze,
        r".*\.ssm_a": lambda rows: negative_exp(column(rows)),
        r".*\.ssm_d": column,
        r".*\.ssm_norm\.weight": lambda rows: reshape(rows, norm),
    }


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    inner, hidden, heads = config.intermediate_size, config.hidden_size, config.count("num_heads", 1 << 16)
    mixed = inner + 2 * groups(config) * config.count("state_size", 1 << 16)
    return {
        "ssm_in": (inner + mixed + heads, hidden),
        "ssm_conv1d": (mixed, config.count("conv_kernel", 1 << 10)),
        "ssm_dt": (heads,),
        "ssm_a": (heads, 1),
        "ssm_d": (heads, 1),
        "ssm_norm": (groups(config), inner // groups(config)),
        "ssm_out": (hidden, inner),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "use_bias")
    yield from refuse_values(config, use_conv_bias=True)


FAMILY = Family(
    arch="mamba2",
    classes=("Mamba2ForCausalLM",),
    model_types=("mamba2",),
    activations=SILU,
    defaults={
        "hidden_act": "silu", "layer_norm_epsilon": 1e-5, "n_groups": 8, "expand": 2, "conv_kernel": 4,
        "tie_word_embeddings": False,
    },
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
    root="backbone.",
    embedding="backbone.embeddings.weight",
)  # fmt: skip
