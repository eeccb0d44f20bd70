"""The format of a template's answers: marked reasoning and calls are rendered, and their marks looked up."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from ...convert.errors import TemplateError
from . import families
from .calls import DECODER
from .formats import ANY, KEY, AnswerFormat, Tags, ToolFormat
from .template import Message, Template

NAMES = ("qvz_alpha", "qvz_beta")
IDS = ("qid000001", "qid000002")
LONG_IDS = ("call_qid000001_abcdef", "call_qid000002_abcdef")
ARGUMENTS = {"kq_one": "vq_paris", "kq_two": 73195}
REASON = "rq_why"
CONTENT = "cq_what"
USER: Message = {"role": "user", "content": "uq_hello"}

_TAG = r"<\|open\|>[^<]*<\|sep\|>|<\|close\|>[^<]*<\|sep\|>|<\|channel>\w+|<[^<>\s]+>|\[[A-Z /_]+\]"
OPENING = re.compile(rf"({_TAG}|[^\n<>\[\]]+:)\s*$")
CLOSING = re.compile(rf"\s*({_TAG})")


def tool(name: str) -> dict[str, Any]:
    properties = {
        "kq_one": {"type": "string", "description": "a place"},
        "kq_two": {"type": "integer", "description": "a count"},
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "a tool", "parameters": parameters}}


TOOLS = tuple(tool(name) for name in NAMES)


def answer_format(template: Template, with_tools: Template | None = None) -> AnswerFormat:
    """How answers look to the prompts of ``template``, and of ``with_tools`` where chats with tools have their own."""
    source = (with_tools or template).source
    for needle, form in families.CHANNELS:
        if needle in source:
            return form
    probe = _Probe(template, with_tools or template)
    return probe.found()


class _Probe:
    def __init__(self, plain: Template, tooled: Template) -> None:
        self._plain = plain
        self._tooled = tooled
        self._text_arguments = False

    def found(self) -> AnswerFormat:
        source = self._tooled.source
        shown = self._render(self._tooled, [USER], tools=TOOLS, prompt=True)
        shows_tools = shown is not None and NAMES[0] in shown
        reasoning, content = self._wrappers()
        tools = self._tool_format(source) if shows_tools else None
        if tools is families.FUNCTIONARY:
            content = (">>>all\n", "")
        if tools is not None:
            opening = tools.section[0]
            for mark in filter(None, reasoning):
                opening = opening.replace(mark, "")
            tools = dataclasses.replace(tools, section=(opening, tools.section[1]))
        return AnswerFormat(
            reasoning=reasoning,
            content=content,
            tools=tools,
            shows_tools=shows_tools and tools is not None,
            text_arguments=self._text_arguments,
            short_ids=tools is not None and self._wants_short_ids(),
        )

    # ---- reasoning and content --------------------------------------------------------------------------------

    def _wrappers(self) -> tuple[tuple[str, str], tuple[str, str]]:
        prompt = self._render(self._plain, [USER], prompt=True)
        said = self._render(self._plain, [USER, {"role": "assistant", "content": CONTENT}])
        thought = self._render(
            self._plain, [USER, {"role": "assistant", "content": CONTENT, "reasoning_content": REASON}]
        )
        reasoning = _reasoning(thought) if thought else ("", "")
        if reasoning[1] and prompt and said:
            written = prompt[boundary(prompt, shared(prompt, said)) :].strip()
            if written and reasoning[0] not in written and reasoning[1] not in written:
                reasoning = (written, reasoning[1])
        if not reasoning[1]:
            known = (pair for pair in families.REASONING if pair[1] in self._plain.source)
            reasoning = next(known, ("", ""))
        content = _content(prompt, said, reasoning) if prompt and said else ("", "")
        return reasoning, content

    # ---- tools ------------------------------------------------------------------------------------------------

    def _tool_format(self, source: str) -> ToolFormat | None:
        for needle, form in families.NAMED:
            if needle in source:
                self._text_arguments = self._renders_objects_wrongly()
                return form
        for as_text in (False, True):
            self._text_arguments = as_text
            one, two = self._answer(1), self._answer(2)
            if one is not None and (found := derive(one, two)) is not None:
                return families.bare(source) if found.bare else found
        self._text_arguments = False
        return next((form for needle, form in families.DESCRIBED if needle in source), None)

    def _renders_objects_wrongly(self) -> bool:
        self._text_arguments = False
        text = self._answer(1)
        return text is None or "'kq_one'" in text

    def _answer(self, count: int) -> str | None:
        """What an assistant that makes ``count`` calls has written, from where it differs from one that speaks."""
        called = self._render(self._tooled, [USER, self._calling(count)], tools=TOOLS)
        said = self._render(self._tooled, [USER, {"role": "assistant", "content": CONTENT}], tools=TOOLS)
        if called is None or said is None:
            return None
        begin = boundary(called, shared(called, said))
        end = shared(called[: begin - 1 : -1], said[: begin - 1 : -1]) if begin else 0
        end = len(called) - end
        while end < len(called) and not _is_boundary(called, end):
            end += 1
        return called[begin:end]

    def _calling(self, count: int, ids: Sequence[str] = IDS) -> Message:
        arguments = json.dumps(ARGUMENTS) if self._text_arguments else ARGUMENTS
        calls = [
            {"id": ids[index], "type": "function", "function": {"name": NAMES[index], "arguments": arguments}}
            for index in range(count)
        ]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    def _wants_short_ids(self) -> bool:
        """Whether the template takes ids like its own only: Mistral's."""
        return (
            self._render(self._tooled, [USER, self._calling(1)], tools=TOOLS) is not None
            and self._render(self._tooled, [USER, self._calling(1, LONG_IDS)], tools=TOOLS) is None
        )

    def _render(
        self, template: Template, messages: Sequence[Message], *, tools: Any = None, prompt: bool = False
    ) -> str | None:
        try:
            return template.render(
                messages, tools=tools, add_generation_prompt=prompt, **families.variables(template.source, tools)
            )
        except TemplateError:
            return None


def _reasoning(thought: str) -> tuple[str, str]:
    """The tags next to the reasoning."""
    begin, end = thought.find(REASON), thought.find(CONTENT)
    if begin < 0 or end < begin:
        return "", ""
    opening = OPENING.search(thought[:begin])
    closing = CLOSING.match(thought[begin + len(REASON) : end])
    return (opening.group(1) if opening else "", closing.group(1)) if closing else ("", "")


def _content(prompt: str, said: str, reasoning: tuple[str, str]) -> tuple[str, str]:
    """What stands around the content and is no reasoning; the end of the turn does not count."""
    place = said.find(CONTENT)
    if place < 0:  # it does not show what was said, or not as it was
        return "", ""
    begin = min(shared(prompt, said), place)
    begin = begin if begin >= len(prompt.rstrip()) else boundary(said, begin)
    opening = said[begin:place]
    for mark in reasoning:
        opening = opening.replace(mark, "") if mark else opening
    opening = opening.strip()
    if not opening:
        return "", ""
    closing = CLOSING.match(said[place + len(CONTENT) :])
    return opening, closing.group(1) if closing else ""


# ---- a rendered call, taken apart ----------------------------------------------------------------------------


def derive(one: str, two: str | None) -> ToolFormat | None:
    """The format of an answer with one call; ``two``: the answer with two, where the template allows it."""
    for call_id in IDS:
        one = one.replace(call_id, ANY)
        two = two.replace(call_id, ANY) if two else two
    return _json_format(one, two) or _python_format(one) or _named_format(one, two) or _tagged_format(one, two)


def _json_format(one: str, two: str | None) -> ToolFormat | None:
    span = _object_span(one, NAMES[0])
    if span is None:
        return None
    value = DECODER.decode(one[span[0] : span[1]])
    listed = isinstance(value, list)
    keys = _keys(value[0] if listed else value)
    if keys is None:
        return None
    before, after = one[: span[0]], one[span[1] :]
    second = _object_span(two, NAMES[1]) if two else None
    first = _object_span(two, NAMES[0]) if two else None
    between = two[first[1] : second[0]] if two and first and second and not listed else None
    section, call, separator = _split(before, after, between)
    bare = not (section[0].strip() or call[0].strip())
    return ToolFormat("json", section, call, separator, "", listed, *keys, bare=bare)


def _object_span(text: str | None, name: str) -> tuple[int, int] | None:
    """The first JSON object, or list of objects, that names a function and has its arguments."""
    for found in re.finditer(r"[\[{]", text or ""):
        try:
            value, end = DECODER.raw_decode(text or "", found.start())
        except json.JSONDecodeError:
            continue
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, dict) and name in json.dumps(first) and "kq_one" in json.dumps(first):
            return found.start(), end
    return None


def _keys(value: Any) -> tuple[str, str] | None:
    value = value["function"] if isinstance(value.get("function"), dict) else value
    if NAMES[0] in value:
        return "", ""
    name = next((key for key, item in value.items() if item == NAMES[0]), None)
    arguments = next((key for key, item in value.items() if item in (ARGUMENTS, json.dumps(ARGUMENTS))), None)
    return (name, arguments) if name and arguments else None


def _python_format(one: str) -> ToolFormat | None:
    begin, end = one.find(f"[{NAMES[0]}("), one.rfind(")]")
    if begin < 0 or end < begin:
        return None
    return ToolFormat("python", (one[:begin].strip(), first_tag(one[end + 2 :])))


def _named_format(one: str, two: str | None) -> ToolFormat | None:
    place = _named_span(one, NAMES[0])
    if place is None:
        return None
    begin, end, stop = place
    middle = one[begin + len(NAMES[0]) : end]
    between = None
    if two and (first := _named_span(two, NAMES[0])) and (second := _named_span(two, NAMES[1], first[2])):
        between = two[first[2] : second[0]]
        middle = _merged(middle, two[second[0] + len(NAMES[1]) : second[1]])
    section, call, separator = _split(one[:begin], one[stop:], between)
    return ToolFormat("named", section, call, separator, middle) if section[0] or call[0] else None


def _named_span(text: str, name: str, at: int = 0) -> tuple[int, int, int] | None:
    """Where the name begins, its arguments begin, and end."""
    key = text.find("kq_one", text.find(name, at)) if name in text[at:] else -1
    end = text.rfind("{", 0, key) if key >= 0 else -1
    begin = text.rfind(name, at, end) if end >= 0 else -1
    if begin < 0:
        return None
    try:
        value, stop = DECODER.raw_decode(text, end)
    except json.JSONDecodeError:
        return None
    return (begin, end, stop) if value == ARGUMENTS else None


def _tagged_format(one: str, two: str | None) -> ToolFormat | None:
    spots = [one.find(mark) for mark in ("kq_one", "vq_paris", "kq_two", "73195")]
    begin = one.rfind(NAMES[0], 0, max(spots[0], 0))
    if begin < 0 or spots != sorted(spots) or spots[0] < 0:
        return None
    opening = one[begin + len(NAMES[0]) : spots[0]]
    text_middle, middle = one[spots[0] + 6 : spots[1]], one[spots[2] + 6 : spots[3]]
    between = one[spots[1] + 8 : spots[2]].replace("kq_one", KEY)
    tail = one[spots[3] + 5 :].replace("kq_two", KEY)
    close = between[: _cut_back(between, shared(between, tail))]
    tag = _common_end(between[len(close) :], opening)
    tags = Tags(tag, _merged(middle, text_middle), close, text_middle if middle != text_middle else "")
    name_end = opening[: len(opening) - len(tag)] if tag else opening
    after = tail[len(close) :]
    first_end = None
    if two and (second := two.rfind(NAMES[1])) > 0:
        place = two.rfind("73195", 0, second) + 5
        first_end = two[place:second].replace("kq_two", KEY)[len(close) :]
        name_end = _merged(name_end, two[second + len(NAMES[1]) :][: len(name_end)])
        first_end = first_end.replace(NAMES[1], ANY)
    section, call, separator = _split(one[:begin].replace(NAMES[0], ANY), after, first_end)
    return ToolFormat("tagged", section, call, separator, name_end, tags=tags)


# ---- cutting literals -----------------------------------------------------------------------------------------


def _split(before: str, after: str, between: str | None) -> tuple[tuple[str, str], tuple[str, str], str]:
    """What stands around the section, around a call, and between two, from what stands around one and between two."""
    if between is None:
        return (before, after), ("", ""), ""
    closing = after[: _cut_back(after, shared(after, between))]
    opening = _common_end(before, between[len(closing) :])  # no tag belongs to two
    opening = opening if opening.strip() else ""
    closing = closing if closing.strip() else ""
    inner = between[len(closing) : max(len(closing), len(between) - len(opening))]
    return (before[: len(before) - len(opening)], after[len(closing) :]), (opening, closing), inner.strip()


def _common_end(one: str, other: str) -> str:
    """The longest end of ``one`` that ``other`` has, too, and that begins where a tag can begin."""
    for begin in range(max(0, len(one) - len(other)), len(one)):
        if other.endswith(one[begin:]) and _is_boundary(one, begin):
            return one[begin:]
    return ""


def _cut_back(text: str, end: int) -> int:
    while end and not _is_boundary(text, end):
        end -= 1
    return end


def _is_boundary(text: str, at: int) -> bool:
    """Whether a tag can begin or end here."""
    return at in (0, len(text)) or text[at] in "<[]{" or text[at - 1] in ">]}\n"


def shared(one: str, other: str) -> int:
    """Characters that two texts have in common at their beginnings."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def boundary(text: str, at: int) -> int:
    return _cut_back(text, at)


def _merged(one: str, other: str) -> str:
    """A literal for both: where they differ, anything may stand."""
    if one == other:
        return one
    begin = shared(one, other)
    end = shared(one[begin:][::-1], other[begin:][::-1])
    return re.sub(r"\w+$", "", one[:begin]) + ANY + re.sub(r"^\w+", "", one[len(one) - end :])


def first_tag(text: str) -> str:
    found = CLOSING.match(text)
    return found.group(1) if found else ""
