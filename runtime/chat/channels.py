"""Answers in messages: gpt-oss's ``<|channel|>NAME to=RECIPIENT<|message|>TEXT<|end|>``, Muse's ``to=...``."""

from __future__ import annotations

import json
import re
from types import MappingProxyType
from typing import ClassVar

from .calls import Schemas, parse
from .families import ATEM
from .formats import Call, Piece
from .growing import GrowingObject
from .literal import Verdict, begins, match, space

MESSAGE = "<|message|>"
RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.\-]+)")
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class ChannelReader:
    """``analysis`` is reasoning, a message to a function is a call, everything else is content.

    endings: of a message; the first ``closed`` of them belong to it, the others begin the next.
    """

    endings: ClassVar[tuple[str, ...]] = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
    closed: ClassVar[int] = 3

    def __init__(self, growing: Schemas = MappingProxyType({})) -> None:
        """``growing``: functions whose arguments are given on as they come, since a grammar sees to it that they are
        whole."""
        self._growing = growing
        self._object: GrowingObject | None = None
        self._text = ""
        self._call = ""  # the function that the message goes to
        self._channel: str | None = None  # None: in the head of a message
        self._whole = False

    @property
    def reasons(self) -> bool:
        return self._channel == "analysis" and not self._call

    def feed(self, text: str) -> list[Piece]:
        self._text += text
        return self._run()

    def finish(self) -> list[Piece]:
        self._whole = True
        return self._run()

    def _run(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._head(pieces) if self._channel is None else self._body(pieces):
            continue
        return pieces

    def _head(self, pieces: list[Piece]) -> bool:
        head, found, rest = self._text.partition(MESSAGE)
        if not found:
            if self._whole and head and not head.startswith(("<|", "assistant", " to=")):
                pieces.append(Piece(content=head))  # it kept to no format at all
                self._text = ""
            return False
        self._call, self._channel = self._addressed(head)
        self._text = rest
        return True

    def _addressed(self, head: str) -> tuple[str, str]:
        """The function that a message calls, if it does, and its channel."""
        recipient, channel = RECIPIENT.search(head), CHANNEL.search(head)
        return recipient.group(1) if recipient else "", channel.group(1) if channel else "final"

    def _called(self, name: str, text: str) -> list[Piece]:
        return [_called(name, text)]

    def _grow(self, pieces: list[Piece]) -> bool | None:
        """Take what there is of growing arguments; None where there are none."""
        if self._call not in self._growing:
            return None
        if self._object is None:
            begin = space(self._text, 0)
            if not self._text.startswith("{", begin):
                return None if begin < len(self._text) or self._whole else False
            self._object, self._text = GrowingObject(), self._text[begin:]
            pieces.append(Piece(begun=self._call))
        before = len(self._object.text)
        self._text = self._text[self._object.feed(self._text, 0) :]
        if text := self._object.text[before:]:
            pieces.append(Piece(arguments=text))
        if not self._object.whole and not self._whole:
            return False
        pieces.append(Piece(call=Call(self._call, self._object.text)))
        self._object, self._call, self._channel = None, "", "commentary"
        return True

    def _body(self, pieces: list[Piece]) -> bool:
        if (grown := self._grow(pieces)) is not None:
            return grown
        end = begins(self.endings, self._text, 0)
        ending = next((mark for mark in self.endings if self._text.startswith(mark, end)), "")
        if self._call:
            if not ending and not self._whole:
                return False
            pieces += self._called(self._call, self._text if not ending else self._text[:end])
            end = len(self._text) if not ending else end
        else:
            end = len(self._text) if self._whole and not ending else end
            if text := self._text[:end]:
                pieces.append(Piece(reasoning=text) if self._channel == "analysis" else Piece(content=text))
        self._text = self._text[end:]
        if not ending:
            return False
        self._channel, self._call = None, ""
        if ending in self.endings[: self.closed]:
            self._text = self._text[len(ending) :]
        return True


def _called(name: str, text: str) -> Piece:
    """A call; the text itself where it is no JSON object."""
    try:
        arguments = json.loads(text, strict=False)
    except (json.JSONDecodeError, RecursionError):
        arguments = None
    return Piece(call=Call.of(name, arguments)) if isinstance(arguments, dict) else Piece(content=text)


class MuseReader(ChannelReader):
    """A message to ``self`` is reasoning, one to ``user`` content, and one to anybody else calls of theirs."""

    endings: ClassVar[tuple[str, ...]] = ("<|eom|>", "<|eot|>", "<|start|>")
    closed: ClassVar[int] = 2

    def __init__(self, tools: Schemas) -> None:
        super().__init__()
        self._tools = tools

    def _addressed(self, head: str) -> tuple[str, str]:
        name, _ = super()._addressed(head)
        if name == "self":
            return "", "analysis"
        return ("", "final") if name in ("", "user") or not self._tools else (name, "tools")

    def _called(self, name: str, text: str) -> list[Piece]:
        """Every call of the message; the text itself where it is no such thing."""
        calls: list[Call] = []
        at = 0
        while isinstance(begin := match(ATEM.call[0], text, at), int):
            parsed = parse(ATEM, text, begin, self._tools, whole=True)
            if isinstance(parsed, Verdict):
                break
            found, at = parsed
            calls += found
            end = match(ATEM.call[1], text, at)
            at = end if isinstance(end, int) else at
        return [Piece(call=call) for call in calls] if calls and not text[at:].strip() else [Piece(content=text)]
