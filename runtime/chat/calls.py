"""Text to tool calls, by a :class:`~.formats.ToolFormat`."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .formats import KEY, Call, Tags, ToolFormat
from .literal import Verdict, match, parts, space
from .values import PYTHON_WORDS, loads, typed

NAME = re.compile(r"[\w.\-/]{1,128}")
PYTHON_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.S)
DECODER = json.JSONDecoder(strict=False)

Parsed = tuple[list[Call], int] | Verdict
Schemas = Mapping[str, Mapping[str, Any]]
"""The schema of the arguments, by the name of the tool."""


def parse(form: ToolFormat, text: str, at: int, schemas: Schemas, *, whole: bool) -> Parsed:
    """The calls that stand at ``at`` behind their opening, and where they end. ``whole``: no more text will come.

    A call that is not whole is PARTIAL; so is one that is broken, since more text could still mend it as far as anybody
    can tell. Where it stands in the text is the only thing that decides, so pieces of a text give what the whole does.
    """
    if form.kind == "json":
        return _json(form, text, at, schemas)
    if form.kind == "python":
        return _python(form, text, at, whole)
    return _named(form, text, at, schemas)


def _json(form: ToolFormat, text: str, at: int, schemas: Schemas) -> Parsed:
    at = space(text, at)
    if text[at : at + 1] not in ("{", "["):
        return Verdict.PARTIAL if at == len(text) else Verdict.NEVER
    try:
        value, end = DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        return Verdict.PARTIAL
    calls = [_of_object(form, item) for item in (value if isinstance(value, list) else [value])]
    found = [call for call in calls if call is not None]
    if not found or len(found) < len(calls) or (form.bare and any(call.name not in schemas for call in found)):
        return Verdict.NEVER
    return found, end


def _of_object(form: ToolFormat, value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    value = value["function"] if isinstance(value.get("function"), dict) else value
    if not form.name_key:
        name, arguments = next(iter(value.items()), (None, None))
    else:
        name = value.get(form.name_key)
        arguments = value.get(form.arguments_key, value.get("arguments", value.get("parameters", {})))
    if isinstance(arguments, str):
        arguments = loads(arguments)
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(arguments, dict):
        return None
    return Call.of(name, arguments)


def _named(form: ToolFormat, text: str, at: int, schemas: Schemas) -> Parsed:
    at = space(text, at)
    name = NAME.match(text, at)
    if name is None:
        return Verdict.PARTIAL if at == len(text) else Verdict.NEVER
    if name.end() == len(text):
        return Verdict.PARTIAL
    at, word = name.end(), name.group()
    if form.kind == "gemma":
        found = _gemma_object(text, at)
        return found if isinstance(found, Verdict) else ([Call.of(word, found[0])], found[1])
    behind = match(form.middle, text, at)
    if isinstance(behind, Verdict):
        return behind
    if form.tags is not None:
        return _tagged(form, form.tags, word, text, behind, schemas)
    behind = space(text, behind)
    if not text.startswith("{", behind):
        return Verdict.PARTIAL if behind == len(text) else Verdict.NEVER
    try:
        value, end = DECODER.raw_decode(text, behind)
    except json.JSONDecodeError:
        return Verdict.PARTIAL
    return [Call.of(word, value)], end


def _tagged(form: ToolFormat, tags: Tags, name: str, text: str, at: int, schemas: Schemas) -> Parsed:
    kinds = schemas.get(name, {}).get("properties", {})
    closing = form.call[1].strip() or form.section[1].strip()
    arguments: dict[str, Any] = {}
    while True:
        end = match(closing, text, at) if closing else Verdict.NEVER
        if isinstance(end, int):
            return [Call.of(name, arguments)], at
        found = parameter(tags, text, at, kinds)
        if end is Verdict.PARTIAL:
            return Verdict.PARTIAL
        if isinstance(found, Verdict):
            return found
        key, value, at = found
        arguments[key] = value


def parameter(tags: Tags, text: str, at: int, kinds: Mapping[str, Any]) -> tuple[str, Any, int] | Verdict:
    """A parameter in tags: its name, its value, and where it ends. kinds: schemas by name."""
    begin = match(tags.open, text, at)
    if isinstance(begin, Verdict):
        return begin
    name = NAME.match(text, begin)
    if name is None or name.end() == len(text):
        return Verdict.NEVER if name is None and begin < len(text) else Verdict.PARTIAL
    value = _parameter(tags, name.group(), text, name.end(), kinds)
    return value if isinstance(value, Verdict) else (name.group(), *value)


def _parameter(tags: Tags, key: str, text: str, at: int, kinds: Mapping[str, Any]) -> tuple[Any, int] | Verdict:
    begin = match(tags.middle, text, at, key)
    if isinstance(begin, Verdict):
        return begin
    plain = bool(tags.text_middle) and isinstance(match(tags.text_middle, text, at, key), int)
    stop = text.find(parts(tags.close.replace(KEY, key))[0], begin)
    end = match(tags.close, text, stop, key) if stop >= 0 else Verdict.PARTIAL
    if isinstance(end, Verdict):
        return end
    raw = text[begin:stop]
    raw = raw.removeprefix("\n") if tags.middle.endswith("\n") else raw
    raw = raw.removesuffix("\n") if tags.close.startswith("\n") else raw
    mark = tags.close.strip().partition("</")[0]
    return (raw if plain else typed(raw, kinds.get(key), hinted=bool(tags.text_middle), mark=mark)), end


# ---- Gemma 4: call:name{key:<|"|>text<|"|>,other:1} --------------------------------------------------------------

QUOTE = '<|"|>'
SCALAR = re.compile(r"[^,{}\[\]<]+")
GEMMA_KEY = re.compile(r"[^:{}\[\],<]+")


class _Unfinished(Exception):
    pass


def _gemma_object(text: str, at: int) -> tuple[dict[str, Any], int] | Verdict:
    try:
        value, end = _gemma(text, at)
    except _Unfinished:
        return Verdict.PARTIAL
    return (value, end) if isinstance(value, dict) else Verdict.NEVER


def _gemma(text: str, at: int, depth: int = 0) -> tuple[Any, int]:
    at = space(text, at)
    if depth > 64 or at >= len(text):
        raise _Unfinished
    if text.startswith(QUOTE, at):
        end = text.find(QUOTE, at + len(QUOTE))
        if end < 0:
            raise _Unfinished
        return text[at + len(QUOTE) : end], end + len(QUOTE)
    if text[at] == "{":
        return _gemma_items(text, at + 1, "}", depth)
    if text[at] == "[":
        return _gemma_items(text, at + 1, "]", depth)
    found = SCALAR.match(text, at)
    if found is None or found.end() == len(text):
        raise _Unfinished
    word = found.group().strip()
    if word in PYTHON_WORDS:  # a text would stand in quotes
        return PYTHON_WORDS[word], found.end()
    value = loads(word)
    return (word if value is None and word != "null" else value), found.end()


def _gemma_items(text: str, at: int, close: str, depth: int) -> tuple[Any, int]:
    pairs: dict[str, Any] = {}
    items: list[Any] = []
    while True:
        at = space(text, at)
        if text.startswith(close, at):
            return (pairs if close == "}" else items), at + 1
        if close == "}":
            key, at = _gemma_key(text, at)
            pairs[key], at = _gemma(text, at, depth + 1)
        else:
            item, at = _gemma(text, at, depth + 1)
            items.append(item)
        at = space(text, at)
        if text.startswith(",", at):
            at += 1
        elif not text.startswith(close, at):
            raise _Unfinished


def _gemma_key(text: str, at: int) -> tuple[str, int]:
    if text.startswith(QUOTE, at):
        key, at = _gemma(text, at)
    else:
        found = GEMMA_KEY.match(text, at)
        if found is None:
            raise _Unfinished
        key, at = found.group().strip(), found.end()
    if not text.startswith(":", at):
        raise _Unfinished
    return str(key), at + 1


# ---- Python calls: [name(key='text', other=1)] -------------------------------------------------------------------


def _python(form: ToolFormat, text: str, at: int, whole: bool) -> Parsed:
    at = space(text, at)
    if not text.startswith("[", at):
        return Verdict.PARTIAL if at == len(text) else Verdict.NEVER
    closing = form.section[1].strip() or form.call[1].strip()
    end = text.find(closing, at) if closing else -1
    if end < 0 and not whole:
        return Verdict.PARTIAL
    end = len(text) if end < 0 else end
    calls = _python_calls(text[at:end].rstrip())
    return Verdict.PARTIAL if calls is None else (calls, end)


def _python_calls(source: str) -> list[Call] | None:
    if len(source) > 1 << 20:
        return None
    try:
        tree = ast.parse(_one_line(source), mode="eval").body
        nodes: Sequence[ast.expr] = tree.elts if isinstance(tree, ast.List) else ()
        return [_python_call(node) for node in nodes] or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _one_line(source: str) -> str:
    """Line breaks within texts as Python wants them: models write them as they are."""
    return PYTHON_TEXT.sub(lambda text: text.group().replace("\n", "\\n"), source)


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or not isinstance(node.func, ast.Name | ast.Attribute):
        raise ValueError("no call with named arguments")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no named argument")
        arguments[keyword.arg] = _python_value(keyword.value)
    return Call.of(ast.unparse(node.func), arguments)


def _python_value(node: ast.expr) -> Any:
    """A literal; ``true``, ``false`` and ``null`` are understood as well."""
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    value = ast.literal_eval(node)
    json.dumps(value)  # raises for what JSON has not: bytes, sets
    return value
