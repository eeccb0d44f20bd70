"""Pictures in messages: taken out of them, so that a template sees only that there is one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...convert.errors import BadRequest
from ..picture import MOST_BYTES
from ..request import Image
from .template import Message

MOST_IMAGES = 16
BARE: Message = {"type": "image"}
_DATA = re.compile(r"data:image/(png|jpeg|jpg|webp);base64,", re.IGNORECASE)


def take(messages: Sequence[Message]) -> tuple[Sequence[Message], tuple[Image, ...]]:
    """Messages whose picture parts are bare ``{"type": "image"}``, and the pictures in their order.

    A picture is ``{"type": "image_url", "image_url": {"url": "data:..."}}``, as OpenAI has it, or ``{"type": "image",
    "image": ...}`` with a path, the bytes of a file, or a data URL; with ``"where"``, the name of it that errors have.

    Raises:
        BadRequest: too many, too large, not a data URL, or a file that cannot be read. ``param`` names the part.
    """
    if not isinstance(messages, Sequence) or not any(_parts(message) for message in messages):
        return messages, ()
    images: list[Image] = []
    bare = [_bare(message, f"messages[{index}].content", images) for index, message in enumerate(messages)]
    if len(images) > MOST_IMAGES:
        where = images[MOST_IMAGES].where
        raise BadRequest(f"{where}: at most {MOST_IMAGES} pictures are read with a request", param=where)
    return bare, tuple(images)


def _parts(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else []


def _bare(message: Message, where: str, images: list[Image]) -> Message:
    parts = list(_parts(message))
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image_url":
            images.append(_from_url(part, f"{where}[{index}].image_url"))
        elif kind == "image" and part != BARE:
            images.append(_from_value(part.get("image"), part.get("where") or f"{where}[{index}].image"))
        elif kind == "image":
            raise BadRequest(f"{where}[{index}] has no picture", hint='{"type": "image", "image": path}', param=where)
        else:
            continue
        parts[index] = BARE
    return {**message, "content": parts} if parts else message


def _from_url(part: Mapping[str, Any], where: str) -> Image:
    url = part.get("image_url")
    if isinstance(url, Mapping):
        url, where = url.get("url"), f"{where}.url"
    if not isinstance(url, str):
        raise BadRequest(f"{where} must be a data URL, not {type(url).__name__}", param=where)
    return Image(from_data_url(url, where), where)


def _from_value(value: Any, where: str) -> Image:
    if isinstance(value, str) and value.startswith("data:"):
        return Image(from_data_url(value, where), where)
    if isinstance(value, str | Path):
        return Image(_read(Path(value), where), where)
    if isinstance(value, bytes | bytearray | memoryview):
        return Image(bytes(value), where)
    raise BadRequest(f"{where} must be a path or the bytes of a file, not {type(value).__name__}", param=where)


def from_data_url(url: str, where: str) -> bytes:
    """The bytes of ``data:image/png;base64,...``. Nothing is ever fetched.

    Raises:
        BadRequest: it is another kind of URL, or too large, or not base64.
    """
    start = _DATA.match(url)
    if start is None:
        raise BadRequest(
            f"{where} must be a data URL of a PNG, JPEG or WebP; it begins with {url[:40]!r}",
            hint="pictures are not fetched: send their bytes, data:image/png;base64,...",
            param=where,
        )
    if (len(url) - start.end()) * 3 // 4 > MOST_BYTES + 2:
        raise BadRequest(f"{where}: a picture may have {MOST_BYTES:,} bytes at most", param=where)
    try:
        return base64.b64decode(url[start.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{where} is not base64: {error}", param=where) from error


def _read(path: Path, where: str) -> bytes:
    try:
        if not path.is_file():
            raise BadRequest(f"{where}: there is no file {path}", hint="check the path", param=where)
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)  # one byte more is refused with the limit
    except OSError as error:
        raise BadRequest(f"{where}: cannot read {path}: {error.strerror}", param=where) from error
