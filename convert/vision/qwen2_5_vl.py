"""Qwen 2.5-VL: a tower of its own, most layers of which look at windows; four neighbouring patches become one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import names
from ..config import Config
from ..families.family import SILU, Transform, refuse_values
from ..gguf import Value
from ..report import Item
from ..transforms import Misfit, Rows, gather, regroup
from . import siglip
from .siglip import FAMILY_OF_TOWER, patch_size

BLOCK = "visual.blocks.{}."
MATRICES: names.Names = {
    BLOCK + "attn.qkv": ("v.blk.{}.attn_q", "v.blk.{}.attn_k", "v.blk.{}.attn_v"),
    BLOCK + "attn.proj": "v.blk.{}.attn_out",
    BLOCK + "mlp.gate_proj": "v.blk.{}.ffn_gate",
    BLOCK + "mlp.up_proj": "v.blk.{}.ffn_up",
    BLOCK + "mlp.down_proj": "v.blk.{}.ffn_down",
    "visual.merger.mlp.0": "mm.0",
    "visual.merger.mlp.2": "mm.2",
}
NORMS: names.Names = {
    BLOCK + "norm1": "v.blk.{}.ln1",
    BLOCK + "norm2": "v.blk.{}.ln2",
    "visual.merger.ln_q": "v.post_ln",
}
FRAMES = ("v.patch_embd.weight", "v.patch_embd.weight.1")
"""The kernels for the two frames of a video; a picture counts as both."""
MERGE = 2
WINDOW = 112
NORM_EPSILON = 1e-6  # a constant of the model's code
IMAGE_SIZE = 560  # what llama.cpp's converter writes; the tower takes any size
MAX_PIXELS = 1 << 30


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tower's own names for what others call differently."""
    return {
        "num_hidden_layers": values.get("depth"),
        "num_attention_heads": values.get("num_heads"),
        "num_channels": values.get("in_channels", values.get("in_chans", 3)),
        "image_size": IMAGE_SIZE,
        "layer_norm_eps": NORM_EPSILON,
    }


def tensors(config: Config) -> names.Names:
    patches: names.Names = {"visual.patch_embed.proj.weight": FRAMES}
    return {**names.weights(MATRICES, NORMS), **names.biases(MATRICES), **patches}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, inner, patch = config.hidden_size, config.intermediate_size, patch_size(config)
    merged = hidden * MERGE**2
    return {
        **siglip.shapes(config),
        **dict.fromkeys(FRAMES, (hidden, 3, patch, patch)),
        "v.ffn_gate": (inner, hidden),
        "mm.0": (merged, merged),
        "mm.2": (siglip.text_width(config), merged),
    }


def transforms(config: Config) -> dict[str, Transform]:
    hidden = config.hidden_size

    def part(number: int) -> Transform:
        return lambda rows: regroup(rows, (hidden, hidden, hidden), 1, number)

    return {
        **{rf"v\.blk\.\d+\.attn_{name}\.(weight|bias)": part(number) for number, name in enumerate("qkv")},
        r"v\.patch_embd\.weight": lambda rows: frame(rows, 0),
        r"v\.patch_embd\.weight\.1": lambda rows: frame(rows, 1),
    }


def frame(rows: Rows, number: int) -> Rows:
    """One of the two kernels over time. Raises :class:`Misfit` where there are not two."""
    if len(rows.shape) != 5 or rows.shape[2] != len(FRAMES):
        raise Misfit(f"{rows.shape} has not {len(FRAMES)} kernels over time")
    channels, colours, frames, height, width = rows.shape
    lines = np.arange(rows.height).reshape(channels * colours, frames, height)[:, number]
    return gather(rows, lines.ravel(), (channels, colours, height, width))


def metadata(config: Config) -> dict[str, Value]:
    least, most = pixels(config)
    return {
        **siglip.metadata(config),
        "projector_type": "qwen2.5vl_merger",
        "use_silu": True,
        "vision.n_wa_pattern": _period(config),
        "vision.image_min_pixels": least,
        "vision.image_max_pixels": most,
    }


def pixels(config: Config) -> tuple[int, int]:
    """Between how many pixels a picture may have when it is looked at."""
    processor = config.get("processor")
    size = processor.get("size") if isinstance(processor.get("size"), dict) else {}
    least = {"pixels": processor.get("min_pixels", size.get("shortest_edge", size.get("min_pixels")))}
    most = {"pixels": processor.get("max_pixels", size.get("longest_edge", size.get("max_pixels")))}
    return (
        siglip.whole(siglip.PROCESSOR, least, "pixels", MAX_PIXELS, 56 * 56),
        siglip.whole(siglip.PROCESSOR, most, "pixels", MAX_PIXELS, 28 * 28 * 1280),
    )


def limits(config: Config) -> Iterator[Item]:
    layers = config.get("fullatt_block_indexes")
    if not isinstance(layers, list) or layers != list(range(_period(config) - 1, config.num_layers, _period(config))):
        yield Item("attention", "fail", f"layers {layers} look at everything; llama.cpp knows every n-th layer only")
    yield from refuse_values(
        config, num_channels=3, window_size=WINDOW, spatial_merge_size=MERGE, temporal_patch_size=len(FRAMES)
    )
    width = siglip.text_width(config)
    if config.get("out_hidden_size", width) != width:
        yield Item("config", "fail", f"rows of {config.get('out_hidden_size')}, where the language model reads {width}")
    for key, value in (("patch_size", patch_size(config)), ("merge_size", MERGE)):
        if config.get("processor").get(key, value) != value:
            yield Item("picture", "fail", f"the image processor has {key} {config.get('processor')[key]}, not {value}")


def _period(config: Config) -> int:
    """Which layer is the first to look at everything, counted from 1."""
    layers = config.get("fullatt_block_indexes")
    first = layers[0] if isinstance(layers, list) and layers else -1
    return siglip.whole("config.json", {"first": first + 1 if type(first) is int else first}, "first", 512)


FAMILY = replace(
    FAMILY_OF_TOWER,
    classes=("Qwen2_5_VLForConditionalGeneration",),
    model_types=("qwen2_5_vl",),
    activations=SILU,
    defaults={
        **siglip.UNUSED, "depth": 32, "hidden_size": 3584, "hidden_act": "silu", "intermediate_size": 3420,
        "num_heads": 16, "patch_size": 14, "fullatt_block_indexes": [7, 15, 23, 31],
    },
    derived=derived,
    spellings={r"^model\.(?=visual\.)": ""},
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    transforms=transforms,
    elements={r"v\.patch_embd\.weight": "F32"},
    limits=limits,
)  # fmt: skip
