"""The answers of gpt-oss: messages in channels, each ``<|channel|>NAME to=RECIPIENT<|message|>TEXT<|end|>``."""

from __future__ import annotations

import json
import re

from .formats import Call, Piece
from .literal import begins

MESSAGE = "<|message|>"
ENDINGS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")
RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.\-]+)")
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class ChannelReader:
    """``analysis`` is reasoning, a message to a function is a call, everything else is content."""

    def __init__(self) -> None:
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
        recipient, channel = RECIPIENT.search(head), CHANNEL.search(head)
        self._call = recipient.group(1) if recipient else ""
        self._channel = channel.group(1) if channel else "final"
        self._text = rest
        return True

    def _body(self, pieces: list[Piece]) -> bool:
        end = begins(ENDINGS, self._text, 0)
        ending = next((mark for mark in ENDINGS if self._text.startswith(mark, end)), "")
        if self._call:
            if not ending and not self._whole:
                return False
            pieces.append(_called(self._call, self._text if not ending else self._text[:end]))
            end = len(self._text) if not ending else end
        else:
            end = len(self._text) if self._whole and not ending else end
            if text := self._text[:end]:
                pieces.append(Piece(reasoning=text) if self._channel == "analysis" else Piece(content=text))
        self._text = self._text[end:]
        if not ending:
            return False
        self._channel, self._call = None, ""
        if ending in ENDINGS[:3]:
            self._text = self._text[len(ending) :]
        return True


def _called(name: str, text: str) -> Piece:
    """A call; the text itself where it is no JSON object."""
    try:
        arguments = json.loads(text, strict=False)
    except (json.JSONDecodeError, RecursionError):
        arguments = None
    return Piece(call=Call.of(name, arguments)) if isinstance(arguments, dict) else Piece(content=text)
