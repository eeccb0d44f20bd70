"""The values of parameters that stand in tags, as the templates of different models write them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

PYTHON_WORDS: Mapping[str, Any] = {"True": True, "False": False, "None": None}
CDATA = ("<![CDATA[", "]]>")
ITEM = "item"
MOST_DEPTH = 64


def typed(raw: str, schema: Any, *, hinted: bool = False, mark: str = "") -> Any:
    """Text where the schema says so or nothing else fits, JSON otherwise.

    hinted: the format tells texts from other values, and this is no text. mark: what stands before the tags of a value
    that is made of further elements, ``MARK<key>VALUEMARK</key>``.
    """
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    kinds = kinds if isinstance(kinds, list) else []
    if raw.startswith(CDATA[0]) and raw.endswith(CDATA[1]):
        return raw[len(CDATA[0]) : -len(CDATA[1])]
    if mark and raw.startswith(f"{mark}<") and (found := elements(raw, mark, schema)) is not None:
        return found
    if not hinted and "string" in kinds and raw != "null":
        return raw
    word = raw.strip()
    if ("boolean" in kinds and word in ("True", "False")) or ("null" in kinds and word == "None"):
        return PYTHON_WORDS[word]  # str() of the value, which a template writes for want of better
    value = loads(raw)
    if value is None and word[:1] in ("[", "{"):  # some templates write lists as Python does
        value = _python_literal(raw)
    return raw if value is None and word != "null" else value


def elements(raw: str, mark: str, schema: Any) -> Any:
    """An object or, where all elements are called ``item``, a list; None if it is neither."""
    try:
        value, end = _children(raw, 0, mark, schema, 0)
    except ValueError:
        return None
    return value if end == len(raw) else None


def _children(text: str, at: int, mark: str, schema: Any, depth: int) -> tuple[Any, int]:
    opening = re.compile(re.escape(mark) + r"<([\w.\-]+)>")
    found: list[tuple[str, Any]] = []
    while (begin := opening.match(text, at)) is not None and depth < MOST_DEPTH:
        name, closing = begin.group(1), f"{mark}</{begin.group(1)}>"
        inner = _schema_of(schema, name)
        if opening.match(text, begin.end()):
            value, at = _children(text, begin.end(), mark, inner, depth + 1)
        else:
            at = text.index(mark + "</", begin.end())
            value = typed(text[begin.end() : at], inner)
        if not text.startswith(closing, at):
            raise ValueError(f"no {closing}")
        found.append((name, value))
        at += len(closing)
    if all(name == ITEM for name, _ in found):
        return [value for _, value in found], at
    return dict(found), at


def _schema_of(schema: Any, name: str) -> Any:
    if not isinstance(schema, Mapping):
        return None
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    return schema.get("items") if name == ITEM else None


def loads(text: str) -> Any:
    """JSON, or None."""
    try:
        return json.loads(text, strict=False)
    except (json.JSONDecodeError, RecursionError):
        return None


def _python_literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text.strip())
        json.dumps(value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return value
