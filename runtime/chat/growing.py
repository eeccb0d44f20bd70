"""A call that is being written under a grammar, so that what there is of it can be given on: its name, then its
arguments piece by piece."""

from __future__ import annotations

import json
import re

from .calls import NAME
from .formats import ToolFormat
from .literal import match, space

STRING_ENDS = re.compile(r"[\"\\\\]")
STRUCTURE = re.compile(r"[\"{}\[\]]")


def grows(form: ToolFormat) -> bool:
    """Whether arguments stand in the format as the JSON that clients get."""
    return (form.kind == "json" and not form.listed) or form.kind == "named"


def begun(form: ToolFormat, text: str, at: int) -> tuple[str, int] | None:
    """The name of the call at ``at``, behind its opening, and where its arguments begin; None while they have not."""
    at = space(text, at)
    if form.kind == "named":
        name = NAME.match(text, at)
        behind = match(form.middle, text, name.end()) if name is not None and name.end() < len(text) else None
        place = space(text, behind) if isinstance(behind, int) else len(text)
        return (name.group(), place) if name is not None and text.startswith("{", place) else None
    if form.name_key:
        key, arguments = json.dumps(form.name_key), json.dumps(form.arguments_key)
        head = rf'\{{\s*{re.escape(key)}\s*:\s*"([^"]+)"\s*,\s*{re.escape(arguments)}\s*:\s*(?=\{{)'
    else:
        head = r'\{\s*"([^"]+)"\s*:\s*(?=\{)'
    found = re.compile(head).match(text, at)
    return (found.group(1), found.end()) if found is not None else None


class GrowingObject:
    """Follows a JSON object through its text, from its opening brace to its closing one."""

    def __init__(self) -> None:
        self.text = ""
        self._depth = 0
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
