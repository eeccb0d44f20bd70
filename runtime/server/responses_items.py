"""The items of OpenAI's responses: a conversation as a list of messages, calls, results and reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...convert.errors import BadRequest
from . import pictures
from .errors import UnsupportedParameter, shown

TEXT_KINDS = ("input_text", "output_text", "text")
ROLES = ("user", "assistant", "system", "developer")
MOST_ITEMS = 4096


def items_of(given: str | Sequence[Any]) -> list[dict[str, Any]]:
    """The input as a list of items.

    Raises:
        BadRequest: it is none.
    """
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if not given or len(given) > MOST_ITEMS:
        raise BadRequest(f"input has {len(given)} items; it must have 1 to {MOST_ITEMS}", param="input")
    items: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        if not isinstance(item, dict):
            raise BadRequest(f"input[{index}] must be an object (got {shown(item)})", param=f"input[{index}]")
        items.append(item)
    return items


def messages_of(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, as a chat template knows them. Calls belong to the message of the assistant before them.

    Raises:
        BadRequest, UnsupportedParameter: an item makes no sense, or is of a kind that is not served.
    """
    messages: list[dict[str, Any]] = []
    thought = ""
    for index, item in enumerate(items):
        place = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(_message(item, place))
        elif kind == "function_call":
            if not messages or messages[-1]["role"] != "assistant" or thought:
                messages.append({"role": "assistant", "content": ""})
            messages[-1].setdefault("tool_calls", []).append(_call(item, place))
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{place}.output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind == "reasoning":
            thought = "\n".join(_texts(item.get("content")) or _texts(item.get("summary")))
            continue
        else:
            raise UnsupportedParameter(f"items of type {shown(kind)} are not supported", param=f"{place}.type")
        if thought and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = thought
        thought = ""
    return messages


def _message(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in ROLES:
        raise BadRequest(f"{place}.role must be one of {', '.join(ROLES)} (got {shown(role)})", param=f"{place}.role")
    return {
        "role": "system" if role == "developer" else role,
        "content": _content(item.get("content"), f"{place}.content"),
    }


def _call(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    name = item.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{place}.name is missing", param=f"{place}.name")
    return {
        "type": "function",
        "id": item.get("call_id"),
        "function": {"name": name, "arguments": item.get("arguments")},
    }


def _content(content: Any, place: str) -> str | pictures.Parts:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{place} must be a text or a list of parts (got {shown(content)})", param=place)
    return pictures.content_of([_part(part, f"{place}[{index}]") for index, part in enumerate(content)])


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else part
    if kind == "input_image" and part.get("file_id") is None:
        return pictures.of_url(part.get("image_url"), f"{place}.image_url")
    if kind not in TEXT_KINDS or not isinstance(part.get("text"), str):
        raise UnsupportedParameter(f"content of type {shown(kind)} is not supported", param=place)
    return {"type": "text", "text": part["text"]}


def details_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that ask to look at a picture closely or not, which changes nothing: a model looks in its own way."""
    return [
        f"input[{index}].{name}[{at}].detail"
        for index, item in enumerate(items)
        for name in ("content", "output")
        if isinstance(item.get(name), list)
        for at, part in enumerate(item[name])
        if isinstance(part, dict) and part.get("detail") in ("low", "high", "original")
    ]


def _texts(parts: Any) -> list[str]:
    return [part["text"] for part in parts or () if isinstance(part, dict) and isinstance(part.get("text"), str)]
