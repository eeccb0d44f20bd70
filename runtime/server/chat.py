"""A chat as every dialect asks for it, and its answer as every dialect writes it. The JSON is theirs."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from ..chat import AnswerReader, Call, Continuing, Output, Piece, Reading
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Priority, Sampling
from .errors import UnsupportedParameter
from .pool import Servable

OBJECT = TypeAdapter(dict[str, Any])
ID_LETTERS = string.ascii_letters + string.digits
ID_LENGTH = 9
"""Mistral's templates take ids of nine letters and digits, and no other; nobody else minds."""


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked of a model. ``tool_choice``: auto, none, required, or ``=name``. ``continues``: the last message is
    the beginning of the answer."""

    messages: list[dict[str, Any]]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    tools: list[dict[str, Any]] = field(default_factory=list)
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    output: Output | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority | None = None
    continues: Continuing = False

    def start(self, model: Servable) -> Stream:
        """Submit it. Blocks: the template is rendered here."""
        extras = self._prompting()
        if self.priority is not None:
            extras["priority"] = self.priority
        return model.chat(
            self.messages,
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            logprobs=self.logprobs,
            n=self.n,
            ignore_eos=self.ignore_eos,
            **extras,
        )

    def count(self, model: Servable) -> int:
        """Tokens of the prompt. Blocks like :meth:`start`."""
        return model.count(self.messages, **self._prompting())

    def render(self, model: Servable) -> str:
        """The prompt. Blocks like :meth:`start`."""
        return model.render(self.messages, **self._prompting())

    def _prompting(self) -> dict[str, Any]:
        """What shapes the prompt, and the answer's grammar; only what was asked for."""
        extras: dict[str, Any] = dict(self.variables)
        if self.tools:
            extras["tools"] = self.tools
            extras["tool_choice"] = self.tool_choice
            extras["parallel_tool_calls"] = self.parallel_tool_calls
        if self.output is not None:
            extras["output"] = self.output
        if self.continues:
            extras["continue_final_message"] = self.continues
        return extras


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known of an answer before its first delta."""

    model: str
    info: ModelInfo
    reading: Reading = field(default_factory=Reading)
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MadeCall:
    """A tool call with its id and its place among the calls of its choice. told: whether it has been given on piece by
    piece."""

    id: str
    index: int
    call: Call
    told: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Something new of a choice: a piece of text, or a call; one of these. ``begun`` is a call without its arguments,
    ``arguments`` a piece of them; ``made`` is the call as a whole, which comes behind these where they come."""

    content: str = ""
    reasoning: str = ""
    made: MadeCall | None = None
    begun: MadeCall | None = None
    arguments: str = ""


class Spoken:
    """The parts of one choice, in their order."""

    def __init__(self, reading: Reading) -> None:
        self._reader: AnswerReader = reading.reader()
        self.num_calls = 0
        self.reasoning_tokens = 0
        self._begun: MadeCall | None = None
        self._cut = False

    def of(self, delta: Delta) -> Iterator[Part]:
        """What a delta brings; the last one brings all that was held back."""
        inside = self._reader.reasons
        pieces = self._reader.feed(delta.text) if delta.text else []
        if inside or self._reader.reasons:
            self.reasoning_tokens += len(delta.tokens)
        if delta.finish_reason is not None:
            pieces = [*pieces, *self._reader.finish()]
        yield from map(self._part, pieces)

    def all(self, deltas: Iterable[Delta]) -> list[Part]:
        return [part for delta in deltas for part in self.of(delta)]

    def finish_reason(self, delta: Delta) -> str | None:
        """How the choice ended: with calls, if it made some and was not cut off."""
        called = self.num_calls and not self._cut
        return "tool_calls" if delta.finish_reason == "stop" and called else delta.finish_reason

    def _part(self, piece: Piece) -> Part:
        if piece.begun:
            self.num_calls += 1
            self._begun = MadeCall(call_id(), self.num_calls - 1, Call(piece.begun, ""), told=True)
            return Part(begun=self._begun)
        if piece.call is None:
            return Part(piece.content, piece.reasoning, arguments=piece.arguments)
        if (begun := self._begun) is not None:
            self._begun = None
            self._cut = not whole(piece.call.arguments)
            return Part(made=replace(begun, call=piece.call))
        self.num_calls += 1
        return Part(made=MadeCall(call_id(), self.num_calls - 1, piece.call))


def whole(arguments: str) -> bool:
    """Whether the arguments of a call are, or were cut off."""
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False


def object_of(arguments: str) -> dict[str, Any]:
    """The arguments of a call as an object: of those that were cut off, as much as there is."""
    return OBJECT.validate_json(arguments or "{}", experimental_allow_partial=True)


def call_id() -> str:
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


def content_of(parts: Sequence[Part]) -> str:
    return "".join(part.content for part in parts)


def reasoning_of(parts: Sequence[Part]) -> str:
    return "".join(part.reasoning for part in parts)


def calls_of(parts: Sequence[Part]) -> list[MadeCall]:
    return [part.made for part in parts if part.made is not None]


def effort_variables(effort: str | None, info: ModelInfo) -> dict[str, Any]:
    """What a template is told of the reasoning that is wanted: ``none``, ``minimal``, ``low``, ``medium``, ``high``.

    Raises:
        UnsupportedParameter: the template takes no such wish.
    """
    if effort is None:
        return {}
    sources = " ".join(info.chat_templates.values())
    if effort != "none" and "reasoning_effort" in sources:
        return {"reasoning_effort": effort}
    if switch := thinking_variables(effort != "none", info):
        return switch
    if effort == "none" and "</think>" not in sources and "reasoning_effort" not in sources:
        return {}  # it never reasons
    raise UnsupportedParameter(
        f"reasoning_effort {effort[:40]!r} is not something that this model's chat template knows",
        param="reasoning_effort",
    )


def thinking_variables(wanted: bool, info: ModelInfo) -> dict[str, Any]:
    """The template's switch for reasoning; nothing where it has none."""
    sources = " ".join(info.chat_templates.values())
    switch = next((name for name in ("enable_thinking", "thinking") if re.search(rf"\b{name}\b", sources)), None)
    return {switch: wanted} if switch is not None else {}
