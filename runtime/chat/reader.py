"""An answer taken apart while it arrives: reasoning, content, tool calls. Every way to cut it gives the same parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from .calls import parse
from .formats import PLAIN, AnswerFormat, Call, Piece
from .growing import Growing, GrowingObject, begun, grows, growth
from .literal import Match, Verdict, begins, match, space

ENDS = re.compile(r"[}\])>]")


class AnswerReader(Protocol):
    """Feed the text of one answer as it comes; :meth:`finish` when there is no more. ``reasons``: what comes now is
    reasoning."""

    @property
    def reasons(self) -> bool: ...
    def feed(self, text: str) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers to one prompt are to be read.

    form: of the template. reasons: the prompt ends inside the reasoning. begun: what the prompt has already written of
    the answer's markers. tools: the functions that may be called, by name, with the schemas of their arguments; empty
    where calls are not looked for. several: more than one call may be made; else what follows the first is content.
    demanded: a grammar sees to it that calls are whole unless the answer is cut off: they are given on as they grow.
    continued: the prompt ends inside the text of the answer: its reasoning where it ``reasons``, else its content.
    """

    form: AnswerFormat = PLAIN
    reasons: bool = False
    begun: str = ""
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    several: bool = True
    demanded: bool = False
    continued: bool = False

    def reader(self) -> AnswerReader:
        """A reader for one answer."""
        from .channels import ChannelReader, MuseReader
        from .grammar import CHANNELS

        if not self.form.channels:
            return Reader(self)
        reader = (
            MuseReader(self.tools)
            if self.form.channels == "muse"
            else ChannelReader(self.tools if self.demanded else {})
        )
        if self.continued:
            channel = CHANNELS[self.form.channels]
            reader.feed(channel.thought if self.reasons else channel.content)
        return reader

    def read(self, text: str) -> tuple[str, str, tuple[Call, ...]]:
        """Reasoning, content and calls of a whole answer."""
        reader = self.reader()
        pieces = [*reader.feed(text), *reader.finish()]
        calls = tuple(piece.call for piece in pieces if piece.call is not None)
        return "".join(p.reasoning for p in pieces), "".join(p.content for p in pieces), calls


class Reader:
    """Reads answers whose parts stand between markers.

    What has been decided leaves the buffer, and what is decided depends on where it stands in the answer alone: a
    marker that is not yet whole, or a call that is not, is waited for until the end.
    """

    def __init__(self, reading: Reading) -> None:
        form = reading.form
        self._form = form
        self._tools = form.tools if reading.tools else None
        self._schemas = reading.tools
        self._several = reading.several
        self._grows = reading.demanded and self._tools is not None and grows(self._tools)
        self._name, self._object, self._rest = "", cast(Growing, GrowingObject()), GrowingObject()
        self._reasoning = form.reasoning[1].strip()
        self._wrapping = [text.strip() for text in form.content if text.strip()]
        self._marks = sorted({*self._wrapping, *(self._tools.openings if self._tools else ())}, key=len, reverse=True)
        self._state: Callable[[], bool] = self._begin if self._reasoning and not reading.continued else self._content
        if self._reasoning and reading.reasons:
            self._state = self._in_reasoning
        self._text = reading.begun
        self._at = self._opened = 0
        self._whole = False
        self._spaces = ""  # held back: they count only if something follows
        self._skips_spaces = reading.reasons and not reading.continued
        self._untouched = not reading.continued
        self._pieces: list[Piece] = []

    @property
    def reasons(self) -> bool:
        return self._state == self._in_reasoning

    def feed(self, text: str) -> list[Piece]:
        keep = self._opened if self._state == self._call else self._at
        self._text = self._text[keep:] + text
        self._at, self._opened = self._at - keep, 0
        if self._state == self._call and not self._grows and not ENDS.search(text):
            return []  # what could make the call whole has not come
        return self._run()

    def finish(self) -> list[Piece]:
        self._whole = True
        pieces = self._run()
        if self._state == self._in_arguments:  # the answer was cut off
            pieces.append(Piece(call=Call(self._name, self._object.text)))
        if self._state == self._next_of_list and (rest := self._text[self._at :].strip()):
            pieces.append(Piece(content=rest))
        if self._spaces and not self._skips_spaces and self._state != self._in_reasoning:
            pieces.append(Piece(content=self._spaces))
        return pieces

    def _run(self) -> list[Piece]:
        """Steps until nothing more can be decided. A step says whether it got on."""
        while self._state():
            continue
        pieces, self._pieces = self._pieces, []
        return pieces

    # ---- states -----------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Nothing has been written yet: reasoning may be opened, here and nowhere else."""
        opening = self._form.reasoning[0]
        end = match(opening, self._text, self._at) if opening.strip() else Verdict.NEVER
        if self._waits(end):
            return False
        closed = match(self._reasoning, self._text, self._at)
        if self._waits(closed):
            return False
        if isinstance(end, int):
            self._at, self._state, self._skips_spaces = end, self._in_reasoning, True
        else:
            if isinstance(closed, int):  # a closing and nothing before it: no reasoning
                self._at, self._skips_spaces = closed, True
            self._state = self._content
        return True

    def _in_reasoning(self) -> bool:
        begin = begins([self._reasoning], self._text, self._at)
        end = match(self._reasoning, self._text, begin)
        if end is Verdict.NEVER:
            begin += 1
        elif end is Verdict.PARTIAL and self._whole:
            begin = len(self._text)
        self._write(self._text[self._at : begin], holds=True, reasoning=True)
        self._at = begin
        if isinstance(end, int):
            self._at, self._state, self._spaces, self._skips_spaces = end, self._content, "", True
        return end is not Verdict.PARTIAL

    def _content(self) -> bool:
        if self._untouched and self._tools is not None and self._tools.bare:
            at = space(self._text, self._at)
            if at == len(self._text) and not self._whole:
                return False
            self._untouched = False
            if self._text[at : at + 1] == "{":
                self._opened, self._state = self._at, self._call
                return True
        begin = begins(self._marks, self._text, self._at)
        self._write(self._text[self._at : begin], holds=self._tools is not None)
        self._at = begin
        return begin < len(self._text) and self._mark(begin)

    def _mark(self, begin: int) -> bool:
        """At what looks like a marker."""
        for marker in self._marks:
            end = match(marker, self._text, begin)
            if self._waits(end):
                return False
            if isinstance(end, int):
                self._at = end
                if marker not in self._wrapping:
                    self._opened, self._state = begin, self._call
                return True
        self._no_marker(begin)
        return True

    def _no_marker(self, begin: int) -> None:
        """The character at ``begin`` is content after all, and what follows is looked at anew."""
        self._write(self._text[begin : begin + 1], holds=self._tools is not None)
        self._at, self._state = begin + 1, self._content

    def _call(self) -> bool:
        """Behind the opening of calls, which stands at ``_opened``."""
        if self._tools is None:
            raise AssertionError("calls are not looked for")
        found = begun(self._tools, self._text, self._at) if self._grows else None
        if found is not None and found[0] in self._schemas:
            self._begin_call(*found)
            return True
        parsed = parse(self._tools, self._text, self._at, self._schemas, whole=self._whole)
        if parsed is Verdict.PARTIAL and not self._whole:
            return False
        if isinstance(parsed, Verdict):
            self._no_marker(self._opened)
            return True
        calls, self._at = parsed
        self._pieces += [Piece(call=call) for call in calls]
        self._spaces, self._skips_spaces, self._state = "", True, self._behind_call
        return True

    def _begin_call(self, name: str, at: int) -> None:
        if self._tools is None:
            raise AssertionError("calls are not looked for")
        self._name, self._at = name, at
        self._object, self._rest = growth(self._tools, self._schemas[name]), GrowingObject(depth=1)
        self._state = self._in_arguments
        self._pieces.append(Piece(begun=name))

    def _in_arguments(self) -> bool:
        """Inside the arguments of a call that a grammar makes whole."""
        before = len(self._object.text)
        self._at = self._object.feed(self._text, self._at)
        if text := self._object.text[before:]:
            self._pieces.append(Piece(arguments=text))
        if self._object.whole:
            self._pieces.append(Piece(call=Call(self._name, self._object.text)))
            self._state = self._behind_arguments
        return self._object.whole

    def _behind_arguments(self) -> bool:
        """The rest of the object that the arguments stand in; in a list, another may follow."""
        if self._tools is not None and self._tools.kind == "json":
            self._at = self._rest.feed(self._text, self._at)
            if not self._rest.whole:
                return False
            if self._tools.listed:
                self._state = self._next_of_list
                return True
        self._spaces, self._skips_spaces, self._state = "", True, self._behind_call
        return True

    def _next_of_list(self) -> bool:
        at = space(self._text, self._at)
        if self._text[at : at + 1] == "," and self._tools is not None:
            found = begun(self._tools, self._text, at)
            if found is not None and found[0] in self._schemas:
                self._begin_call(*found)
                return True
        elif at < len(self._text):
            self._at = at + (self._text[at] == "]")
            self._spaces, self._skips_spaces, self._state = "", True, self._behind_call
            return True
        return False

    def _behind_call(self) -> bool:
        """What closes and separates calls is skipped, as often as it comes; a further object is a further call."""
        tools = self._tools
        if tools is None:
            raise AssertionError("calls are not looked for")
        for literal in (tools.call[1], tools.section[1], tools.separator):
            if literal.strip():
                end = match(literal, self._text, self._at)
                if self._waits(end):
                    return False
                if end is not Verdict.NEVER:
                    self._at = end if isinstance(end, int) else len(self._text)
                    return isinstance(end, int)
        at = space(self._text, self._at)
        if at == len(self._text) and not self._whole:
            return False
        again = tools.kind == "json" and not tools.call[0].strip() and self._text[at : at + 1] == "{"
        self._opened = self._at
        self._state = self._call if again else self._content
        if not again and not self._several:
            self._tools, self._marks = None, self._wrapping
        return True

    # ---- what all share ---------------------------------------------------------------------------------------

    def _waits(self, verdict: Match) -> bool:
        return verdict is Verdict.PARTIAL and not self._whole

    def _write(self, text: str, *, holds: bool, reasoning: bool = False) -> None:
        """Something that is certain. ``holds``: white space at its end waits until something follows."""
        text = self._spaces + text
        text = text.lstrip() if self._skips_spaces else text
        kept = text.rstrip() if holds else text
        self._spaces = text[len(kept) :]
        if kept:
            self._skips_spaces = False
            self._untouched = self._untouched and reasoning
            self._pieces.append(Piece(reasoning=kept) if reasoning else Piece(content=kept))
