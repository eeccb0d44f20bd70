"""Qwen 2.5-VL, the language model: Qwen 2 with positions of three kinds, equal in a text. The vision part is a file of
its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..config import Config
from ..gguf import Value
from ..report import Item
from . import qwen2
from .family import VISION_DROPPED, shape_metadata


def metadata(config: Config) -> dict[str, Value]:
    sections = [*(config.rope.scaling.get("mrope_section") or []), 0, 0, 0, 0][:4]
    return {**shape_metadata(config), "rope.dimension_sections": np.array(sections, np.int32)}


def limits(config: Config) -> Iterator[Item]:
    yield from qwen2.limits(config)
    sections = config.rope.scaling.get("mrope_section")
    sizes = sections if isinstance(sections, list) and all(type(size) is int for size in sections) else []
    if len(sizes) != 3 or min(sizes) < 1 or 2 * sum(sizes) != config.head_dim:
        yield Item("rope", "fail", f"mrope_section is {sections!r}: three sizes that sum to {config.head_dim // 2} are "
                   "expected")  # fmt: skip


FAMILY = replace(
    qwen2.FAMILY,
    arch="qwen2vl",
    classes=("Qwen2_5_VLForConditionalGeneration",),
    model_types=("qwen2_5_vl", "qwen2_5_vl_text"),
    defaults={**qwen2.FAMILY.defaults, "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568,
              "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
              "rope_theta": 1_000_000.0},
    dropped=VISION_DROPPED,
    metadata=metadata,
    limits=limits,
    rope_types=frozenset({"default", "mrope"}),
)  # fmt: skip
