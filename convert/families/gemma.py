"""Gemma (1): norms stored as weight - 1, a head size of its own, the head always tied."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import Config
from ..report import Item
from ..transforms import add_one
from .family import Family, Transform, refuse_flags, shape_metadata, unsupported


def tensors(config: Config) -> names.Names:
    return names.weights(names.LLAMA)


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*_norm\.weight": add_one}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias", "use_bidirectional_attention")
    if not config.tied:
        yield unsupported("tie_word_embeddings", False)


FAMILY = Family(
    arch="gemma",
    classes=("GemmaForCausalLM",),
    model_types=("gemma",),
    # "gelu" in Gemma's first configs was a mistake for the tanh form, which transformers corrects too.
    activations=("gelu_pytorch_tanh", "gelu_new", "gelu"),
    defaults={
        "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": True,
    },
    tensors=tensors,
    metadata=shape_metadata,
    transforms=transforms,
    limits=limits,
)  # fmt: skip
