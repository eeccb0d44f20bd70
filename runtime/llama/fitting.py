"""The size in which a vision part looks at a picture, where transformers stretches it and llama.cpp would not.

llama.cpp keeps the proportions of a picture for Gemma 3 and Qwen-VL, and fills up with black what that leaves free; the
checkpoints were trained with stretched ones. A picture that has the right size already is taken as it is, so it is
given that size here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...convert.errors import BadRequest
from ...convert.gguf import Value
from ..picture import Picture, resized
from .metadata import integer

LEAST_ROWS, MOST_ROWS = 4, 4096
"""Of a picture for Qwen-VL, where the file does not say it; more than the latter llama.cpp gives to no picture."""
QWEN = ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger")


def fitted(picture: Picture, metadata: Mapping[str, Value], where: str) -> Picture:
    """The picture as the vision part of that metadata takes it.

    Raises:
        BadRequest: nothing would be left of it; ``where`` is the field that is blamed.
    """
    kind = metadata.get("clip.projector_type")
    if kind == "gemma3":
        size = integer(metadata, "clip.vision.image_size", 0)
        return resized(picture, size, size, "BILINEAR")
    if kind in QWEN:
        return resized(picture, *smart_size(picture.width, picture.height, metadata), "BICUBIC")
    longest = integer(metadata, "clip.vision.preproc_image_size", 0)
    if longest and longest * min(picture.width, picture.height) < max(picture.width, picture.height):
        raise BadRequest(f"{where}: a picture of {picture.width} × {picture.height} is too narrow", param=where)
    return picture


def row_limits(metadata: Mapping[str, Value]) -> tuple[int, int]:
    """The fewest and the most rows that a picture becomes, for a vision part that takes any size; else (-1, -1)."""
    if metadata.get("clip.projector_type") not in QWEN:
        return -1, -1
    area = _unit(metadata) ** 2
    least = integer(metadata, "clip.vision.image_min_pixels", LEAST_ROWS * area) // area
    most = integer(metadata, "clip.vision.image_max_pixels", MOST_ROWS * area) // area
    return max(1, least), min(MOST_ROWS, max(1, most))


def smart_size(width: int, height: int, metadata: Mapping[str, Value]) -> tuple[int, int]:
    """Width and height in whole rows, between the limits, with about the same proportions.

    Source: ``smart_resize`` of transformers' image processor of Qwen2-VL.
    """
    unit = _unit(metadata)
    least, most = (rows * unit**2 for rows in row_limits(metadata))
    wide, high = (round(side / unit) * unit for side in (width, height))
    if wide * high > most:
        scale = math.sqrt(width * height / most)
        wide, high = (max(unit, math.floor(side / scale / unit) * unit) for side in (width, height))
    elif wide * high < least:
        scale = math.sqrt(least / (width * height))
        wide, high = (math.ceil(side * scale / unit) * unit for side in (width, height))
    return wide, high


def _unit(metadata: Mapping[str, Value]) -> int:
    """Pixels, in each direction, of what becomes one row."""
    return integer(metadata, "clip.vision.patch_size", 14) * integer(metadata, "clip.vision.spatial_merge_size", 2)
