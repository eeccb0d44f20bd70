"""Gemma 3: a SigLIP tower whose patches are averaged, normed and projected, always to the same number of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..families.family import Transform, refuse_values
from ..gguf import Value
from ..report import Item
from ..transforms import add_one
from . import siglip
from .siglip import FAMILY_OF_TOWER, image_size, patch_size

NORM = "mm.soft_emb_norm.weight"
PROJECTION = "mm.input_projection.weight"
CONNECTOR: names.Names = {
    "multi_modal_projector.mm_soft_emb_norm.weight": NORM,
    "multi_modal_projector.mm_input_projection_weight": PROJECTION,
}
MAX_ROWS = 1 << 16
ASSUMED_POOLING = 4


def tensors(config: Config) -> names.Names:
    return {**siglip.tensors(config), **CONNECTOR}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    return {**siglip.shapes(config), NORM: (hidden,), PROJECTION: (hidden, siglip.text_width(config))}


def transforms(config: Config) -> dict[str, Transform]:
    return {r"mm\.soft_emb_norm\.weight": add_one}


def metadata(config: Config) -> dict[str, Value]:
    keys = {**siglip.metadata(config), "projector_type": "gemma3", "use_gelu": True}
    return keys if _pooling(config) == ASSUMED_POOLING else {**keys, "vision.projector.scale_factor": _pooling(config)}


def limits(config: Config) -> Iterator[Item]:
    processor, size = config.get("processor"), image_size(config)
    if _pooling(config) ** 2 * _rows(config) != (size // patch_size(config)) ** 2:
        yield Item("picture", "fail", f"{size // patch_size(config)} by {size // patch_size(config)} patches cannot be "
                   f"averaged to {_rows(config)} rows")  # fmt: skip
    if processor.get("size") != {"height": size, "width": size}:
        yield Item("picture", "fail", f"pictures of {processor.get('size')}, where the tower takes {size} by {size}")
    if processor.get("do_pan_and_scan"):
        yield Item("picture", "fail", "do_pan_and_scan is set: llama.cpp shows a picture once, and no crops of it")
    yield from refuse_values(config, num_channels=3)


def _rows(config: Config) -> int:
    return siglip.whole("config.json", config.get("model"), "mm_tokens_per_image", MAX_ROWS, 256)


def _pooling(config: Config) -> int:
    """How many patches, in each direction, are averaged."""
    return image_size(config) // patch_size(config) // math.isqrt(_rows(config))


FAMILY = replace(
    FAMILY_OF_TOWER,
    classes=("Gemma3ForConditionalGeneration",),
    model_types=("gemma3",),
    spellings={
        r"^(model\.)?vision_tower\.(vision_model\.)?": "vision_model.",
        r"^model\.(?=multi_modal_projector\.)": "",
    },
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    transforms=transforms,
    elements={**siglip.FULL_WIDTH, r"mm\.input_projection\.weight": "F16"},
    dropped={
        **siglip.LANGUAGE,
        r"(model\.)?vision_tower\.(vision_model\.)?head\..*": "a head of the tower, which Gemma does not use",
    },
    limits=limits,
)
