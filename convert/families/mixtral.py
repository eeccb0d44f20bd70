"""Mixtral: Mistral with a mixture of experts in place of each MLP."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from . import llama
from .family import expert_metadata
from .mistral import FAMILY as MISTRAL


def tensors(config: Config) -> names.Names:
    return names.weights(names.BASE, names.MIXTRAL_EXPERTS)


def metadata(config: Config) -> dict[str, Value]:
    return {**llama.metadata(config), **expert_metadata(config)}


FAMILY = replace(
    MISTRAL,
    classes=("MixtralForCausalLM",),
    model_types=("mixtral",),
    defaults={
        **MISTRAL.defaults, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    tensors=tensors,
    metadata=metadata,
)  # fmt: skip
