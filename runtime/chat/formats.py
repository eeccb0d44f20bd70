"""How a model writes what is not plain text: its reasoning and its tool calls. Values, found by :mod:`.probe`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

ANY = "\0"
"""In a literal: an id or an index that differs from call to call."""
KEY = "\1"
"""In a literal: the name of the parameter, once more."""

Kind = Literal["json", "named", "tagged", "gemma", "python"]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. ``arguments`` is a JSON object as text."""

    name: str
    arguments: str

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, Any]) -> Call:
        return cls(name, json.dumps(arguments, ensure_ascii=False))


@dataclass(frozen=True, slots=True)
class Piece:
    """Something new of an answer: one of these. ``begun`` is the name of a call and ``arguments`` a part of its
    arguments, of which ``call`` will be the whole; some calls come without."""

    content: str = ""
    reasoning: str = ""
    call: Call | None = None
    begun: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Tags:
    """Parameters written as tags: ``open`` NAME ``middle`` VALUE ``close``. ``text_middle`` is the middle before a
    string where that differs."""

    open: str
    middle: str
    close: str
    text_middle: str = ""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How calls are written. White space in the literals stands for any, none included.

    kind: ``json``, an object that holds the name and the arguments, or a list of them (``listed``); ``named``, the
    name, ``middle``, the arguments as JSON; ``tagged``, the name, ``middle``, parameters as ``tags``; ``gemma`` and
    ``python``, notations of their own for the arguments.
    section: what stands around all calls. call: what stands around each. separator: between two.
    name_key, arguments_key: of the object; no ``name_key`` where the name is the key of the arguments.
    bare: the object of a known tool is a call without an opening, too, when the answer begins with it.
    """

    kind: Kind
    section: tuple[str, str] = ("", "")
    call: tuple[str, str] = ("", "")
    separator: str = ""
    middle: str = ""
    listed: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    tags: Tags | None = None
    bare: bool = False

    @property
    def openings(self) -> tuple[str, ...]:
        """The texts that a call can begin with, the longest first."""
        opening = self.section[0] + self.call[0]
        found = {opening.strip(), self.section[0].strip(), self.call[0].strip()} - {""}
        return tuple(sorted(found, key=len, reverse=True))


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How the answers of one template are written.

    reasoning, content: what stands around each; empty where nothing does.
    tools: None where the template knows of none. shows_tools: whether it tells the model of the tools it is given.
    text_arguments: the template wants arguments as text, not as an object. short_ids: it takes call ids of nine letters
    and digits only. channels: the whole answer comes in messages to somebody, as those of gpt-oss or of Muse.
    """

    reasoning: tuple[str, str] = ("", "")
    content: tuple[str, str] = ("", "")
    tools: ToolFormat | None = None
    shows_tools: bool = False
    text_arguments: bool = False
    short_ids: bool = False
    channels: Literal["", "gpt-oss", "muse"] = ""

    @property
    def markers(self) -> str:
        """All literals: the control tokens among them must be shown, or the answer cannot be read."""
        if self.channels == "gpt-oss":
            return "<|start|><|channel|><|message|><|end|><|constrain|><|call|>"
        if self.channels == "muse":
            return "<|start|><|message|><|eom|>"
        texts = [*self.reasoning, *self.content]
        if self.tools is not None:
            tools = self.tools
            texts += [*tools.section, *tools.call, tools.middle]
            texts += [tools.tags.open, tools.tags.middle, tools.tags.close] if tools.tags else []
            texts += ['<|"|>'] if tools.kind == "gemma" else []
        return " ".join(text for text in texts if text).replace(ANY, " ").replace(KEY, " ")


PLAIN = AnswerFormat()
"""All text is content."""
