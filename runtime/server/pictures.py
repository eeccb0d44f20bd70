"""Pictures as the dialects send them, as parts of a message that :meth:`.pool.Servable.chat` takes. On that road they
are decoded, and refused where they are none or where the model reads no pictures; nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...convert.errors import BadRequest
from .errors import UnsupportedParameter, shown

KINDS = ("image/png", "image/jpeg", "image/webp")
NOT_FETCHED = "pictures are not fetched: send their bytes"
Parts = list[dict[str, Any]]


def of_base64(data: Any, place: str, kind: Any = KINDS[0]) -> dict[str, Any]:
    """A picture in base64; ``kind`` is what it is said to be, ``place`` the field that an error names.

    Raises:
        BadRequest: it is no text, or of a kind that is not read.
    """
    if not isinstance(data, str):
        raise BadRequest(f"{place} must be base64 (got {shown(data)})", param=place)
    if kind not in KINDS:
        raise BadRequest(f"{place}: pictures of type {shown(kind)} are not read: {', '.join(KINDS)}", param=place)
    return {"type": "image", "image": f"data:{kind};base64,{data}", "where": place}


def of_url(url: Any, place: str) -> dict[str, Any]:
    """A picture in a data URL.

    Raises:
        BadRequest: it is another kind of URL.
    """
    if not isinstance(url, str) or not url.startswith("data:"):
        raise BadRequest(f"{place}: {NOT_FETCHED}, as data:image/png;base64,...", param=place)
    return {"type": "image", "image": url, "where": place}


def of_source(source: Any, place: str) -> dict[str, Any]:
    """A picture as Anthropic's ``source``."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "base64":
        return of_base64(source.get("data"), f"{place}.data", source.get("media_type"))
    if kind == "url":
        raise BadRequest(f"{place}: {NOT_FETCHED}, as a source of type base64", param=place)
    raise UnsupportedParameter(f"sources of type {shown(kind)} are not supported", param=place)


def content_of(parts: Sequence[dict[str, Any]]) -> str | Parts:
    """Texts and pictures as the content of a message: a text where there are no pictures, since most templates know
    text only."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return [part for part in parts if part["type"] != "text" or part["text"]]
