"""A conversation made ready for a template: tool calls as it wants them, control tokens in texts defused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ...convert.errors import BadRequest
from .formats import AnswerFormat

MARKS = ("\U000f5afe", "\U000f5aff", "\U000f5b00", "\ue5af")
SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


def prepared(messages: Sequence[Mapping[str, Any]], form: AnswerFormat) -> list[Mapping[str, Any]]:
    """Messages with arguments and call ids as the template takes them, and the tool's name in its results.

    Raises:
        BadRequest: arguments are no JSON object; ``param`` says which.
    """
    names: dict[str, str] = {}
    ready = []
    for index, message in enumerate(messages):
        calls = message.get("tool_calls")
        if isinstance(calls, Sequence) and calls:
            place = f"messages[{index}].tool_calls"
            made = [_call(call, f"{place}[{number}]", form) for number, call in enumerate(calls)]
            names |= {str(call.get("id")): str(call["function"]["name"]) for call in made if call.get("id")}
            message = {**message, "tool_calls": made}
        if message.get("role") == "tool":
            message = _result(message, names, form)
        ready.append(message)
    return ready


def _call(call: Any, place: str, form: AnswerFormat) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRequest(f"{place} must have a function with a name", param=place)
    arguments = _arguments(function.get("arguments"), f"{place}.function.arguments")
    written = json.dumps(arguments, ensure_ascii=False) if form.text_arguments else arguments
    ready = {**call, "type": "function", "function": {**function, "arguments": written}}
    return ready | ({"id": _short(call["id"], form)} if call.get("id") else {})


def _arguments(arguments: Any, place: str) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadRequest(f"{place} is not JSON: {error}", param=place) from error
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise BadRequest(f"{place} must be a JSON object", param=place)
    return arguments


def _result(message: Mapping[str, Any], names: Mapping[str, str], form: AnswerFormat) -> Mapping[str, Any]:
    ready = dict(message)
    if call_id := message.get("tool_call_id"):
        ready["tool_call_id"] = _short(call_id, form)
    if not message.get("name") and (name := names.get(str(ready.get("tool_call_id")))):
        ready["name"] = name
    return ready


def _short(call_id: Any, form: AnswerFormat) -> str:
    """The id, or nine letters and digits for it where the template takes no other."""
    text = str(call_id)
    if not form.short_ids or SHORT_ID.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:9]


class Defuser:
    """Marks the places where a text would forge a control token, so that the prompt can be cut there."""

    def __init__(self, control_tokens: Iterable[str]) -> None:
        texts = sorted((text for text in control_tokens if len(text) > 1), key=len, reverse=True)
        self._forgery = re.compile("|".join(map(re.escape, texts))) if texts else None

    def defused(self, value: Any) -> tuple[Any, str]:
        """A copy of messages or tools with a mark inside each control token of its texts, and the mark; ``""`` where
        there are none."""
        if self._forgery is None or not _any_text(
            value, lambda text: bool(self._forgery and self._forgery.search(text))
        ):
            return value, ""
        mark = next(mark for mark in MARKS if not _any_text(value, partial(str.__contains__, mark)))
        return self._marked(value, mark), mark

    def _marked(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            forgery = self._forgery
            while forgery is not None and forgery.search(value):
                value = forgery.sub(lambda found: found.group()[0] + mark + found.group()[1:], value)
            return value
        if isinstance(value, Mapping):
            return {key: item if key == "role" else self._marked(item, mark) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._marked(item, mark) for item in value]
        return value


def cut(text: str, mark: str) -> tuple[str, tuple[int, ...]]:
    """A rendered prompt without its marks, and where they stood."""
    if not mark or mark not in text:
        return text, ()
    pieces = text.split(mark)
    places, at = [], 0
    for piece in pieces[:-1]:
        at += len(piece)
        places.append(at)
    return "".join(pieces), tuple(dict.fromkeys(place for place in places if place))


def _any_text(value: Any, holds: Any) -> bool:
    if isinstance(value, str):
        return bool(holds(value))
    if isinstance(value, Mapping):
        return any(_any_text(item, holds) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_any_text(item, holds) for item in value)
    return False
