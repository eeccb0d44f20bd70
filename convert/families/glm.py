"""GLM-4 (9B) and GLM-Edge: fused gate and up projections, half of each head rotated."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from . import glm4
from .qwen2 import BIASED


def tensors(config: Config) -> names.Names:
    biases = names.biases(BIASED) if config.flag("attention_bias") else {}
    return {**names.weights(names.BASE, glm4.FUSED_MLP), **biases}


FAMILY = replace(
    glm4.FAMILY,
    arch="chatglm",
    classes=("GlmForCausalLM",),
    model_types=("glm",),
    tensors=tensors,
    square=True,
)
