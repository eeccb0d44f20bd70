"""Anthropic's ``/v1/messages``: blocks to messages, deltas to blocks. The road is in exchange.py."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...convert.errors import BadRequest
from ..chat import Output
from ..chat.toolbox import checked
from ..request import Delta, ModelInfo, Sampling, Usage
from . import pictures
from .asking import Asking
from .chat import Chat, Opening, Spoken, effort_variables, object_of, thinking_variables
from .chat import Part as SpokenPart
from .errors import UnsupportedParameter, anthropic_payload, shown
from .openai_fields import MOST_STOPS, Unit, UnitNotZero
from .posted import ModelName, Part
from .sse import Framing, named_event

MOST_MESSAGES = 2048
MOST_TOOLS = 128
FRAMING = Framing(
    encode=named_event,
    failure=anthropic_payload,
    done=b"",
    keep_alive=named_event({"type": "ping"}),
)
REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Thinking(Part):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: str | None = None


class ToolField(Part):
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    type: str | None = None
    cache_control: Any = None
    strict: bool | None = None


class ChoiceField(Part):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputConfig(Part):
    effort: str | None = None
    format: dict[str, Any] | None = None


class MessageField(Part):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class MessagesRequest(Asking):
    framing: ClassVar[Framing] = FRAMING
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"container": (None,), "mcp_servers": (None, []), "context_management": (None,)}
    )
    without_effect: ClassVar[tuple[str, ...]] = ("inference_geo", "speed", "diagnostics")

    model: ModelName = None
    max_tokens: Annotated[int, Field(ge=1)]
    messages: Annotated[list[MessageField], Field(min_length=1, max_length=MOST_MESSAGES)]
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    temperature: Unit | None = None
    top_p: UnitNotZero | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    tools: Annotated[list[ToolField], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ChoiceField | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    # Labels and places of somebody else's service.
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    cache_control: Any = None
    inference_geo: Any = None
    speed: Any = None
    diagnostics: Any = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    def ignored(self, strict: bool) -> list[str]:
        budget = self.thinking is not None and self.thinking.budget_tokens is not None
        return super().ignored(strict) + (["thinking.budget_tokens"] if budget else [])

    def examine(self) -> None:
        self._messages()
        checked(self._tools(), self._choice())
        self._output()

    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""
        values = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k")}
        choice = self.tool_choice
        return Chat(
            self._messages(),
            Sampling(**{name: value for name, value in values.items() if value is not None}),
            self.max_tokens,
            tuple(self.stop_sequences or ()),
            tools=self._tools(),
            tool_choice=self._choice(),
            parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
            output=self._output(),
            variables=self._variables(info),
            continues=self.messages[-1].role == "assistant",
        )

    def writer(self, opening: Opening) -> MessagesWriter:
        stops = tuple(self.stop_sequences or ())
        return MessagesWriter(opening, stops[0] if len(stops) == 1 else None)

    def _variables(self, info: ModelInfo) -> dict[str, Any]:
        effort = self.output_config.effort if self.output_config else None
        if effort is not None:
            return effort_variables(effort, info)
        return thinking_variables(self.thinking.type != "disabled", info) if self.thinking else {}

    def _messages(self) -> list[dict[str, Any]]:
        first = [{"role": "system", "content": _text(self.system, "system")}] if self.system else []
        messages = [
            plain
            for index, message in enumerate(self.messages)
            for plain in _plain(message, f"messages[{index}].content")
        ]
        return [*first, *messages]

    def _tools(self) -> list[dict[str, Any]]:
        for index, tool in enumerate(self.tools or ()):
            if tool.type not in (None, "custom"):
                raise UnsupportedParameter(f"tools of type {tool.type!r:.60} are not run here", param=f"tools[{index}]")
        return [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema},
            }
            for tool in self.tools or ()
        ]

    def _choice(self) -> str:
        choice = self.tool_choice
        if choice is None:
            return "auto"
        return f"={choice.name}" if choice.type == "tool" else {"any": "required"}.get(choice.type, choice.type)

    def _output(self) -> Output | None:
        given = self.output_config.format if self.output_config else None
        if given is None:
            return None
        if given.get("type") != "json_schema" or not isinstance(given.get("schema"), dict):
            raise BadRequest("output_config.format must be a json_schema with a schema", param="output_config.format")
        return Output("json", given["schema"], "output_config.format.schema")


def _text(content: Any, place: str) -> str:
    """Text, or blocks of text, as text."""
    if isinstance(content, str):
        return content
    return "\n".join(_text_of(block, f"{place}[{index}]") for index, block in enumerate(content or ()))


def _text_of(block: Any, place: str) -> str:
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    kind = block.get("type") if isinstance(block, dict) else block
    raise UnsupportedParameter(f"content of type {shown(kind)} is not supported", param=place)


def _plain(message: MessageField, place: str) -> Iterator[dict[str, Any]]:
    """The messages, as a template knows them, that one of Anthropic's stands for."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
    elif message.role == "assistant":
        yield _assistant(message.content, place)
    else:
        yield from _user(message.content, place, message.role)


def _assistant(blocks: list[dict[str, Any]], place: str) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for index, block in enumerate(blocks):
        kind = block.get("type")
        if kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input", {})}
            calls.append({"type": "function", "id": block.get("id"), "function": function})
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking", "")))
        elif kind != "redacted_thinking":
            texts.append(_text_of(block, f"{place}[{index}]"))
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    return message | ({"tool_calls": calls} if calls else {})


def _user(blocks: list[dict[str, Any]], place: str, role: str) -> Iterator[dict[str, Any]]:
    """Tool results are messages of their own, in their place."""
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        if block.get("type") != "tool_result":
            parts.append(_part(block, f"{place}[{index}]"))
            continue
        if parts:
            yield {"role": role, "content": pictures.content_of(parts)}
            parts = []
        content = _seen(block.get("content") or "", f"{place}[{index}].content")
        yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
    if parts:
        yield {"role": role, "content": pictures.content_of(parts)}


def _seen(content: Any, place: str) -> str | pictures.Parts:
    """Text, or blocks of text and pictures."""
    if isinstance(content, str):
        return content
    return pictures.content_of([_part(block, f"{place}[{index}]") for index, block in enumerate(content)])


def _part(block: Any, place: str) -> dict[str, Any]:
    if isinstance(block, dict) and block.get("type") == "image":
        return pictures.of_source(block.get("source"), f"{place}.source")
    return {"type": "text", "text": _text_of(block, place)}


class MessagesWriter:
    """Writes one answer as blocks, in pieces or whole."""

    def __init__(self, opening: Opening, stop: str | None) -> None:
        self._opening = opening
        self._stop = stop
        self._id = f"msg_{uuid.uuid4().hex}"
        self._spoken = Spoken(opening.reading)
        self._block = ""  # the kind of the block that is open
        self._index = -1
        self._ending: dict[str, Any] = {}

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        """Blocks open and close as their kind changes; a call is a block of its own."""
        if self._index < 0 and not self._block:
            self._block = "none"
            yield {"type": "message_start", "message": self._message([], {"stop_reason": None}, Usage())}
        for part in self._spoken.of(delta):
            yield from self._part(part)
        if delta.finish_reason is not None:
            yield from self._close()
            self._ending = _ending(delta, self._spoken, self._stop)

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        yield {"type": "message_delta", "delta": self._ending, "usage": _usage(used)}
        yield {"type": "message_stop"}

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: of the one choice."""
        blocks: list[dict[str, Any]] = []
        for part in self._spoken.all(deltas[0]):
            kind, text = ("thinking", part.reasoning) if part.reasoning else ("text", part.content)
            if part.made is not None:
                arguments = object_of(part.made.call.arguments)
                blocks.append({"type": "tool_use", "id": part.made.id, "name": part.made.call.name, "input": arguments})
            elif not text:
                continue
            elif blocks and blocks[-1]["type"] == kind:
                blocks[-1][kind] += text
            else:
                blocks.append(_opened(kind) | {kind: text})
        return self._message(blocks, _ending(deltas[0][-1], self._spoken, self._stop), used)

    def _part(self, part: SpokenPart) -> Iterator[dict[str, Any]]:
        if part.reasoning:
            yield from self._text("thinking", {"type": "thinking_delta", "thinking": part.reasoning})
        if part.content:
            yield from self._text("text", {"type": "text_delta", "text": part.content})
        if (begun := part.begun or part.made) is not None and not (part.made and part.made.told):
            block = {"type": "tool_use", "id": begun.id, "name": begun.call.name, "input": {}}
            yield from self._open("tool_use", block)
        if arguments := part.arguments or (part.made.call.arguments if part.made and not part.made.told else ""):
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})
        if part.made is not None:
            yield from self._close()

    def _text(self, kind: str, delta: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._block != kind:
            yield from self._open(kind, _opened(kind))
        yield self._delta(delta)

    def _open(self, kind: str, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._block = kind
        self._index += 1
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._block not in ("", "none"):
            self._block = "none"
            yield {"type": "content_block_stop", "index": self._index}

    def _message(self, blocks: list[dict[str, Any]], ending: dict[str, Any], used: Usage) -> dict[str, Any]:
        usage = _usage(used) if used.prompt_tokens else _usage(Usage(prompt_tokens=self._opening.prompt_tokens))
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._opening.model}
        return head | {"content": blocks, "stop_sequence": None, **ending, "usage": usage}


def _opened(kind: str) -> dict[str, Any]:
    return {"type": "text", "text": ""} if kind == "text" else {"type": "thinking", "thinking": "", "signature": ""}


def _ending(delta: Delta, spoken: Spoken, stop: str | None) -> dict[str, Any]:
    """Why it ended. Which of several stop sequences it was is not known."""
    if delta.stop_detail == "stop_string" and not spoken.num_calls:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": REASONS[spoken.finish_reason(delta) or "stop"], "stop_sequence": None}


def _usage(used: Usage) -> dict[str, Any]:
    return {
        "input_tokens": used.prompt_tokens - used.cached_tokens,
        "cache_read_input_tokens": used.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": used.completion_tokens,
    }


class CountRequest(MessagesRequest):
    """``/v1/messages/count_tokens``: the same request, of which only the prompt is looked at."""

    max_tokens: Annotated[int, Field(ge=1)] = 1

    def examine(self) -> None:
        self._messages()
        checked(self._tools(), self._choice())

    def answer(self, model: Any) -> dict[str, Any]:
        return {"input_tokens": self.chat(model.info).count(model)}
