"""What an answer must look like, as it was asked for: a JSON schema, a regular expression, choices, a grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Shape = Literal["json", "regex", "choice", "lark"]

SPACES = {"whitespace_flexible": True, "whitespace_pattern": "[ \\n]{0,20}"}
"""White space between the parts of JSON; bounded, or a small model writes nothing else."""


@dataclass(frozen=True, slots=True)
class Output:
    """The shape of an answer's content. ``param``: the request's field that says so.

    value: a JSON schema, a regular expression, a tuple of texts, or a grammar in Lark.
    """

    shape: Shape
    value: Any
    param: str = "output"

    def rules(self) -> str:
        """Lark: a rule ``content``, and what it needs."""
        if self.shape == "json":
            return f"content: {json_rule(self.value)}\n"
        if self.shape == "regex":
            return f"content: CONTENT\nCONTENT: /{slashed(self.value)}/\n"
        if self.shape == "choice":
            return "content: " + " | ".join(quoted(text) for text in self.value) + "\n"
        return "content: @given\n"

    def side_grammars(self) -> list[dict[str, str]]:
        return [{"name": "given", "lark_grammar": self.value}] if self.shape == "lark" else []


def json_rule(schema: Any) -> str:
    """Lark for JSON of a schema."""
    if isinstance(schema, Mapping):
        schema = {**schema, "x-guidance": SPACES}
    return "%json " + json.dumps(schema)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def slashed(pattern: str) -> str:
    """A regular expression between slashes: the slashes in it escaped."""
    escaped, previous = [], ""
    for letter in pattern:
        escaped.append("\\/" if letter == "/" and previous != "\\" else "\\n" if letter == "\n" else letter)
        previous = "" if previous == "\\" else letter
    return "".join(escaped)
