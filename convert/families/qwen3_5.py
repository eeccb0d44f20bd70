"""Qwen 3.5 (text): Qwen3-Next with plain MLPs and separate projections.

llama.cpp repeats the key heads of a state as a whole (k0 k1 k0 k1), where the model repeats each (k0 k0 k1 k1): the
value heads are reordered to match, wherever they are rows or columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, columns, gather
from . import qwen3_next
from .family import VISION_DROPPED, Transform, refuse_flags, shape_metadata

LINEAR = qwen3_next.LINEAR
INPUTS: names.Names = {
    LINEAR + "in_proj_qkv": "blk.{}.attn_qkv",
    LINEAR + "in_proj_z": "blk.{}.attn_gate",
    LINEAR + "in_proj_a": "blk.{}.ssm_alpha",
    LINEAR + "in_proj_b": "blk.{}.ssm_beta",
}
SECTIONS = (11, 11, 10)


def tensors(config: Config) -> names.Names:
    plain = names.weights(names.EMBEDDING, names.FINAL_NORM, qwen3_next.NORMS, names.GATED_MLP)
    return {**plain, **qwen3_next.mixers(config, INPUTS)}


def position_sections(config: Config) -> dict[str, Value]:
    """How the rotated dimensions are shared by time, height and width; in a text all three are equal."""
    sections = [*config.rope.scaling.get("mrope_section", SECTIONS), 0, 0, 0, 0][:4]
    return {"rope.dimension_sections": np.array(sections, np.int32)}


def metadata(config: Config) -> dict[str, Value]:
    return {**shape_metadata(config), **qwen3_next.state_metadata(config), **position_sections(config)}


def tiled(config: Config, size: int, before: int = 0) -> NDArray[np.intp]:
    """Where the elements of value heads of ``size`` come from, after ``before`` others that stay."""
    num_keys, num_values, _, _ = qwen3_next.heads(config)
    grouped = np.arange(num_values * size).reshape(num_keys, num_values // num_keys, size)
    return np.concatenate([np.arange(before), before + grouped.swapaxes(0, 1).ravel()])


def transforms(config: Config) -> dict[str, Transform]:
    num_keys, _, key, value = qwen3_next.heads(config)
    mixed, heads, one = tiled(config, value, 2 * num_keys * key), tiled(config, value), tiled(config, 1)

    def reordered(order: NDArray[np.intp]) -> Transform:
        def take(rows: Rows) -> Rows:
            return gather(rows, order, rows.shape)

        return take

    return {
        **qwen3_next.norms_and_state(config),
        r".*\.(attn_qkv|ssm_conv1d)\.weight": reordered(mixed),
        r".*\.attn_gate\.weight": reordered(heads),
        r".*\.(ssm_alpha\.weight|ssm_beta\.weight|ssm_a|ssm_dt\.bias)": reordered(one),
        r".*\.ssm_out\.weight": lambda rows: columns(rows, heads),
    }


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "attention_bias")
    yield from qwen3_next.square_state(config)


FAMILY = replace(
    qwen3_next.FAMILY,
    arch="qwen35",
    classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    model_types=("qwen3_5_text", "qwen3_5"),
    defaults={**qwen3_next.FAMILY.defaults, "num_experts": None},
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    dropped={**VISION_DROPPED, **qwen3_next.PREDICTION},
    limits=limits,
)
