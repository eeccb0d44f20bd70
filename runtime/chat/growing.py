"""A call that is being written under a grammar, so that what there is of it can be given on: its name, then its
arguments piece by piece."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from .calls import NAME, parameter
from .formats import Tags, ToolFormat
from .literal import Verdict, match, space

STRING_ENDS = re.compile(r"[\"\\\\]")
STRUCTURE = re.compile(r"[\"{}\[\]]")


class Growing(Protocol):
    """Arguments on their way. ``text``: what there is of them, as JSON."""

    text: str

    def feed(self, text: str, at: int) -> int:
        """Take what belongs to them of ``text`` from ``at`` on; returns where that ends."""
        ...

    @property
    def whole(self) -> bool: ...


def grows(form: ToolFormat) -> bool:
    """Whether arguments can be told before all of them are there."""
    return form.kind in ("json", "named", "tagged")


def growth(form: ToolFormat, schema: Mapping[str, Any]) -> Growing:
    """What follows the arguments of a call whose name was read."""
    if form.tags is None:
        return GrowingObject()
    return GrowingTags(form.tags, form.call[1].strip() or form.section[1].strip(), schema)


def begun(form: ToolFormat, text: str, at: int) -> tuple[str, int] | None:
    """The name of the call at ``at``, behind its opening, and where its arguments begin; None while they have not."""
    at = space(text, at)
    if form.kind != "json":
        name = NAME.match(text, at)
        behind = match(form.middle, text, name.end()) if name is not None and name.end() < len(text) else None
        if name is None or not isinstance(behind, int):
            return None
        place = space(text, behind)
        return (name.group(), place) if form.tags is not None or text.startswith("{", place) else None
    if form.name_key:
        key, arguments = json.dumps(form.name_key), json.dumps(form.arguments_key)
        head = rf'\{{\s*{re.escape(key)}\s*:\s*"([^"]+)"\s*,\s*{re.escape(arguments)}\s*:\s*(?=\{{)'
    else:
        head = r'\{\s*"([^"]+)"\s*:\s*(?=\{)'
    if form.listed:
        head = rf"[\[,]\s*{head}"
    found = re.compile(head).match(text, at)
    return (found.group(1), found.end()) if found is not None else None


class GrowingObject:
    """Follows a JSON object through its text, from its opening brace to its closing one. ``depth``: of braces that were
    opened before."""

    def __init__(self, depth: int = 0) -> None:
        self.text = ""
        self._depth = depth
        self._in_string = False

    def feed(self, text: str, at: int) -> int:
        """Take what belongs to it of ``text`` from ``at`` on; returns where that ends. An escape that is not whole is
        left for the next time."""
        begin = at
        while not self.whole:
            found = (STRING_ENDS if self._in_string else STRUCTURE).search(text, at)
            if found is None:
                at = len(text)
                break
            if found.group() == "\\":
                if found.end() == len(text):
                    at = found.start()
                    break
                at = found.end() + 1
                continue
            at = found.end()
            if found.group() == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if found.group() in "{[" else -1
            if self._depth == 0:
                break
        self.text += text[begin:at]
        return at

    @property
    def whole(self) -> bool:
        return bool(self.text) and self._depth == 0 and not self._in_string


class GrowingTags:
    """Follows parameters that stand in tags, one whole parameter after the other, to the ``closing`` of the call."""

    def __init__(self, tags: Tags, closing: str, schema: Mapping[str, Any]) -> None:
        self.text = ""
        self.whole = False
        self._tags, self._closing, self._kinds = tags, closing, schema.get("properties", {})

    def feed(self, text: str, at: int) -> int:
        """As :meth:`Growing.feed`; the closing is left where it is."""
        while not self.whole:
            end = match(self._closing, text, at) if self._closing else Verdict.NEVER
            if isinstance(end, int):
                self.text += "}" if self.text else "{}"
                self.whole = True
                break
            found = parameter(self._tags, text, at, self._kinds) if end is Verdict.NEVER else end
            if isinstance(found, Verdict):
                break
            key, value, at = found
            before = ", " if self.text else "{"
            self.text += f"{before}{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        return at
