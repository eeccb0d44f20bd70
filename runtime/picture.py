"""Pictures: from the bytes of a file to rows of red, green and blue. The only door to Pillow.

What a picture claims is checked before it is decoded. Its turn (EXIF) is undone and its transparency dropped, as
transformers does it.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from typing import Literal

from ..convert.errors import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_BYTES = 16 << 20
MOST_PIXELS = 50_000_000
MOST_ASPECT = 200
"""Longer side over the shorter one; beyond that transformers refuses, too."""
Resampling = Literal["BILINEAR", "BICUBIC"]
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, slots=True)
class Picture:
    """``rgb``: three bytes for each pixel, row by row."""

    width: int
    height: int
    rgb: bytes = field(repr=False)


def decode(data: bytes, where: str) -> Picture:
    """Read a PNG, JPEG or WebP.

    Raises:
        BadRequest: it is none, is damaged, animated, or beyond a limit; ``where`` is the field that is blamed.
    """
    if len(data) > MOST_BYTES:
        raise BadRequest(
            f"{where}: the picture has {len(data):,} bytes, and at most {MOST_BYTES:,} are read", param=where
        )
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a file that is many times what it claims
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check(image.width, image.height, image.mode, getattr(image, "n_frames", 1), where)
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except BadRequest:
        raise
    except Exception as error:  # whatever a decoder makes of hostile bytes
        raise BadRequest(
            f"{where}: this is no picture that can be read: {_reason(error)}",
            hint=f"send one of {', '.join(FORMATS)}",
            param=where,
        ) from error
    return Picture(upright.width, upright.height, upright.tobytes())


def resized(picture: Picture, width: int, height: int, how: Resampling) -> Picture:
    """The picture in another size, stretched where need be."""
    from PIL import Image

    if (picture.width, picture.height) == (width, height):
        return picture
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    return Picture(width, height, image.resize((width, height), Image.Resampling[how]).tobytes())


def _check(width: int, height: int, mode: str, frames: int, where: str) -> None:
    """What the header says, before a pixel is read."""
    if width * height > MOST_PIXELS:
        raise BadRequest(
            f"{where}: the picture has {width:,} × {height:,} pixels, and at most {MOST_PIXELS:,} are read", param=where
        )
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise BadRequest(f"{where}: a picture of {width:,} × {height:,} is too narrow", param=where)
    if mode in DEEP_MODES:
        raise BadRequest(f"{where}: the picture has more than 8 bits for a colour, which are not read", param=where)
    if frames > 1:
        raise BadRequest(f"{where}: the picture has {frames} frames; only one can be shown", param=where)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    return str(error) or type(error).__name__
