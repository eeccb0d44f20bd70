"""Grammars of whole answers in Lark, by the format of a template's answers: reasoning first, then what is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .formats import ANY, KEY, AnswerFormat, Tags, ToolFormat
from .output import Output, json_rule, quoted

TEXT = "/(?s:.*)/"
GAP = r"/[ \n]{0,3}/"
IDENTIFIER = "/[A-Za-z0-9_.:-]{0,40}/"
Tool = tuple[str, Mapping[str, Any]]
NEXT = "<|start|>assistant"


@dataclass(frozen=True, slots=True)
class Channel:
    """How messages of reasoning and of content begin, and how one ends that another follows."""

    thought: str
    content: str
    end: str


CHANNELS: Mapping[str, Channel] = {
    "gpt-oss": Channel("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|end|>"),
    "muse": Channel(" to=self<|message|>", " to=user<|message|>", "<|eom|>"),
}


@dataclass
class AnswerGrammar:
    """Writes the rules of one answer.

    control_tokens: ids by text; in a literal, such a text is the token. reasons: the prompt ends inside the reasoning.
    begun: what the prompt has already written of the first call.
    """

    form: AnswerFormat
    control_tokens: Mapping[str, int]
    reasons: bool = False
    begun: str = ""
    _rules: list[str] = field(default_factory=list)

    def of(self, *, tools: Sequence[Tool] = (), several: bool = True, output: Output | None = None) -> str:
        """The answer calls one of ``tools`` (``several``: or more), or has the content of ``output``."""
        bodies = []
        if tools:
            self._rules += self._calls(tools, several)
            bodies.append("calls")
        if output is not None:
            self._rules.append(output.rules())
            bodies.append(self._wrapped("content"))
        self._rules.append(f"body: {' | '.join(bodies)}\n")
        lark = "%llguidance {}\n" + self._start() + "".join(self._rules)
        side = output.side_grammars() if output is not None else []
        return json.dumps({"grammars": [{"name": "answer", "lark_grammar": lark}, *side]}) if side else lark

    # ---- reasoning --------------------------------------------------------------------------------------------

    def _start(self) -> str:
        if self.form.channels:
            channel = CHANNELS[self.form.channels]
            thought = self._until("thought", channel.end)
            return f"start: ({self.literal(channel.thought)} thought {self.literal(NEXT)})? body\n{thought}"
        opening, closing = (mark.strip() for mark in self.form.reasoning)
        if not closing or (not opening and not self.reasons):
            return "start: body\n"
        thought = self._until("thought", closing)
        if self.reasons:
            return f"start: thought {GAP} body\n{thought}"
        return f"start: ({self.literal(opening)} thought {GAP})? body\n{thought}"

    def _until(self, name: str, closing: str) -> str:
        """A rule for any text up to a literal, the literal included."""
        if any(text in self.control_tokens for text in self._split(closing)):
            return f"{name}: {TEXT} {self.literal(closing)}\n"
        return f"{name}[suffix={quoted(closing)}]: {TEXT}\n"

    def _wrapped(self, rule: str) -> str:
        if self.form.channels:
            return f"{self.literal(CHANNELS[self.form.channels].content)} {rule}"
        opening, closing = (mark for mark in self.form.content)
        opening = opening.removeprefix(self.begun)
        return " ".join(filter(None, (self.literal(opening), rule, self.literal(closing))))

    # ---- calls ------------------------------------------------------------------------------------------------

    def _calls(self, tools: Sequence[Tool], several: bool) -> Iterator[str]:
        if self.form.channels:
            yield from self._channel_calls(tools) if self.form.channels == "gpt-oss" else self._sent(tools, several)
            return
        form = self.form.tools
        if form is None:
            raise ValueError("the format has no calls")
        opening = (form.section[0] + form.call[0]).lstrip()
        yield f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}\n"
        for index, (name, schema) in enumerate(tools):
            yield from self._call(form, index, name, schema)
        first = self.literal(
            opening.removeprefix(self.begun) if self.begun and opening.startswith(self.begun) else opening
        )
        if form.bare:
            first = ""
        between = " ".join(filter(None, (self._list_comma(form), self.literal(form.call[0]))))
        closing, after = self.literal(form.call[1]), self.literal(form.section[1])
        separator = self.literal(form.separator or "")
        more = " ".join(filter(None, (closing, GAP, separator, GAP, between, "call"))) if several else ""
        listing = ('"["', '"]"') if form.listed else ("", "")
        if form.kind == "python":
            listing, more = ('"["', '"]"'), ('", " call' if several else "")
        yield (
            "calls: "
            + " ".join(
                filter(None, (first, listing[0], "call", f"({more})*" if more else "", closing, listing[1], after))
            )
            + "\n"
        )

    def _list_comma(self, form: ToolFormat) -> str:
        return '", "' if form.listed else ""

    def _channel_calls(self, tools: Sequence[Tool]) -> Iterator[str]:
        heads = []
        for index, (name, schema) in enumerate(tools):
            yield f"arguments_{index}: {json_rule(_object(schema))}\n"
            head = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
            heads.append(f"{self.literal(head)} arguments_{index}")
        yield f"calls: {' | '.join(heads)}\n"

    def _sent(self, tools: Sequence[Tool], several: bool) -> Iterator[str]:
        """Calls in messages to the tools, as Muse writes them."""
        form = self.form.tools
        if form is None or form.tags is None:
            raise ValueError("the format has no calls")
        for index, (name, schema) in enumerate(tools):
            head = self.literal(f" to={name}<|message|>{form.call[0]}{name}{form.middle}")
            yield from self._parameters(f"call_{index}", schema, form.tags, "", head, self.literal(form.call[1]))
        yield f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}\n"
        between = self.literal(CHANNELS["muse"].end + NEXT)
        yield f"calls: call ({between} call)*\n" if several else "calls: call\n"

    def _call(self, form: ToolFormat, index: int, name: str, schema: Mapping[str, Any]) -> Iterator[str]:
        rule = f"call_{index}"
        if form.kind == "json":
            yield f"{rule}_arguments: {json_rule(_object(schema))}\n"
            head = (
                f'{{"{form.name_key}": {quoted(name)}, "{form.arguments_key}": '
                if form.name_key
                else f"{{{quoted(name)}: "
            )
            yield f'{rule}: {quoted(head)} {rule}_arguments "}}"\n'
        elif form.kind == "named":
            yield f"{rule}_arguments: {json_rule(_object(schema))}\n"
            yield f"{rule}: {quoted(name)} {self.literal(form.middle)} {rule}_arguments\n"
        elif form.kind == "python":
            yield from self._parameters(rule, schema, Tags("", "=", ""), ", ", f"{quoted(name + '(')}", '")"')
        elif form.kind == "gemma":
            yield from self._parameters(rule, schema, Tags("", ":", "", ':<|"|>'), ",", quoted(name + "{"), '"}"')
        elif form.tags is not None:
            head = f"{quoted(name)} {self.literal(form.middle)}"
            yield from self._parameters(rule, schema, form.tags, "", head, "")

    def _parameters(
        self, rule: str, schema: Mapping[str, Any], tags: Tags, comma: str, head: str, tail: str
    ) -> Iterator[str]:
        """Required parameters in their order, then the others, each of which may be missing."""
        schema = _object(schema)
        properties = schema.get("properties") or {}
        required = [key for key in properties if key in (schema.get("required") or ())]
        keys = [*required, *(key for key in properties if key not in required)]
        parts = [head]
        for number, key in enumerate(keys):
            yield from self._parameter(f"{rule}_{number}", key, properties[key], tags, schema)
            before = quoted(comma) if comma and number else ""
            part = " ".join(filter(None, (before, f"{rule}_{number}")))
            parts.append(part if key in required else f"({part})?")
        if comma and not required and keys:  # which comes first is open: one of them at most
            options = " | ".join(f"{rule}_{number}" for number in range(len(keys)))
            parts = [head, f"({options})?"]
        yield f"{rule}: {' '.join(filter(None, [*parts, tail]))}\n"

    def _parameter(self, rule: str, key: str, schema: Any, tags: Tags, whole: Mapping[str, Any]) -> Iterator[str]:
        head = " ".join(filter(None, (self.literal(tags.open), quoted(key))))
        kinds = schema.get("type") if isinstance(schema, Mapping) else None
        in_tags = bool(tags.close) or tags.text_middle.endswith('<|"|>')
        if kinds == "string" and in_tags:
            middle = tags.text_middle or tags.middle
            close = (tags.close or '<|"|>').replace(KEY, key)
            choices = schema.get("enum")
            if choices:
                value = "(" + " | ".join(quoted(str(choice)) for choice in choices) + ")"
                yield f"{rule}: {head} {self.literal(middle.replace(KEY, key))} {value} {self.literal(close)}\n"
            else:
                yield self._until(f"{rule}_value", close)
                yield f"{rule}: {head} {self.literal(middle.replace(KEY, key))} {rule}_value\n"
            return
        definitions = {name: whole[name] for name in ("$defs", "definitions") if name in whole}
        inner = {**schema, **definitions} if isinstance(schema, Mapping) else schema
        yield f"{rule}_value: {json_rule(inner)}\n"
        middle, close = (self.literal(text.replace(KEY, key)) for text in (tags.middle, tags.close))
        yield f"{rule}: {' '.join(filter(None, (head, middle, f'{rule}_value', close)))}\n"

    # ---- literals ---------------------------------------------------------------------------------------------

    def literal(self, text: str) -> str:
        """Lark for a literal: control tokens as tokens, the rest as text."""
        return " ".join(self._token(part) for part in self._split(text) if part)

    def _token(self, part: str) -> str:
        if part == ANY:
            return IDENTIFIER
        return f"<[{self.control_tokens[part]}]>" if part in self.control_tokens else quoted(part)

    def _split(self, text: str) -> list[str]:
        present = [token for token in self.control_tokens if token and token in text]
        pattern = "|".join(re.escape(token) for token in sorted([*present, ANY], key=len, reverse=True))
        return re.split(f"({pattern})", text)


def _object(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of arguments; they are an object, whatever it leaves open."""
    return {"type": "object", **(schema or {})}
