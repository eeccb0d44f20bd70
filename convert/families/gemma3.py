"""Gemma 3, the language model: query and key norms, five windowed layers to one full, two rotary bases.

Of a checkpoint with vision the language model is converted; the vision tower is left out, by a rule that the report
names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names, rope
from ..config import MAX_CONTEXT, Config, number
from ..gguf import Value
from ..report import Item
from . import gemma, gemma2
from .family import VISION_DROPPED, shape_metadata, unsupported, window_pattern

LAYERS_OF_27B = 62


def tensors(config: Config) -> names.Names:
    return {**gemma2.tensors(config), **names.weights(names.QUERY_KEY_NORMS)}


def metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {
        **shape_metadata(config),
        **window_pattern(config, period=6),
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
    }
    if config.rope_local is not None:
        keys["rope.freq_base_swa"] = config.rope_local.theta
    if config.get("final_logit_softcapping") is not None:
        keys["final_logit_softcapping"] = number(config.values, "final_logit_softcapping")
    return keys


def limits(config: Config) -> Iterator[Item]:
    yield from gemma.limits(config)
    yield from gemma2.attention_scale(config, LAYERS_OF_27B)
    if config.get("attn_logit_softcapping") is not None:
        yield unsupported("attn_logit_softcapping", config.get("attn_logit_softcapping"))
    if config.rope_local is not None and (reason := rope.problem(config.rope_local, frozenset({"default"}))):
        yield Item("rope", "fail", f"the windowed layers' {reason}")


FAMILY = replace(
    gemma2.FAMILY,
    arch="gemma3",
    classes=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    model_types=("gemma3_text", "gemma3"),
    defaults={
        **gemma.FAMILY.defaults, "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 131072, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0,
    },
    tensors=tensors,
    metadata=metadata,
    dropped=VISION_DROPPED,
    limits=limits,
    rope_types=frozenset({"default", "linear"}),
)  # fmt: skip
