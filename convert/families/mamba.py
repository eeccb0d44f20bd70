"""Mamba, and Falcon Mamba, which normalises the time step and the two projections of the state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import negative_exp, squeeze
from . import mamba2
from .family import Transform, refuse_flags, refuse_values

LAYER = mamba2.LAYER
STEP: names.Names = {LAYER + "mixer.dt_proj": "blk.{}.ssm_dt"}
INPUTS: names.Names = {LAYER + "mixer.x_proj": "blk.{}.ssm_x"}
FALCON = "falcon_mamba"


def tensors(config: Config) -> names.Names:
    return {**names.weights(mamba2.MATRICES, INPUTS, STEP), **names.biases(STEP), **mamba2.STATE}


def rank(config: Config) -> int:
    return config.count("time_step_rank", 1 << 16, -(-config.hidden_size // 16))


def metadata(config: Config) -> dict[str, Value]:
    return {
        **mamba2.state_metadata(config),
        "ssm.time_step_rank": rank(config),
        "ssm.dt_b_c_rms": config.get("model_type") == FALCON,
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*\.ssm_conv1d\.weight": squeeze, r".*\.ssm_a": negative_exp}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    inner, hidden, state = config.intermediate_size, config.hidden_size, config.count("state_size", 1 << 16)
    return {
        "ssm_in": (2 * inner, hidden),
        "ssm_conv1d": (inner, config.count("conv_kernel", 1 << 10)),
        "ssm_x": (rank(config) + 2 * state, inner),
        "ssm_dt": (inner, rank(config)),
        "ssm_a": (inner, state),
        "ssm_d": (inner,),
        "ssm_out": (hidden, inner),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "use_bias")
    yield from refuse_values(config, use_conv_bias=True, expand=2)


FAMILY = replace(
    mamba2.FAMILY,
    arch="mamba",
    classes=("MambaForCausalLM", "FalconMambaForCausalLM"),
    model_types=("mamba", FALCON),
    defaults={**mamba2.FAMILY.defaults, "tie_word_embeddings": True},
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    limits=limits,
)
