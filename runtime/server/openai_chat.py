"""``/v1/chat/completions``: JSON to messages, deltas to JSON. Pure functions and values; the road is in exchange.py."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ...convert.errors import BadRequest
from ..chat import Continuing, Reading
from ..chat.toolbox import checked
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Usage
from .chat import Chat, MadeCall, Opening, Spoken, calls_of, content_of, effort_variables, reasoning_of
from .chat import Part as SpokenPart
from .errors import UnsupportedParameter, path, shown
from .openai_fields import MOST_LOGPROBS, UNSUPPORTED, Fields
from .openai_shapes import Head, chat_logprobs, ending, with_usage
from .pool import Servable
from .posted import Part

MOST_MESSAGES = 2048
MOST_TOOLS = 128
MOST_TEMPLATE_FIELDS = 16
SERVED = ("add_generation_prompt", "continue_final_message")
RESERVED = frozenset(inspect.signature(Servable.chat).parameters) | {
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "return_dict",
    "chat_template",
}


class ImageUrl(Part):
    """``detail`` other than auto is reported as ignored: a model looks at pictures in its own way."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None

    @field_validator("url")
    @classmethod
    def _only_data(cls, url: str) -> str:
        if not url.startswith("data:"):
            raise ValueError("pictures are not fetched: send their bytes, as data:image/png;base64,...")
        return url

    def unknown(self, location: tuple[int | str, ...] = ()) -> Iterator[str]:
        yield from super().unknown(location)
        if self.detail in ("low", "high"):
            yield path((*location, "detail"))


class ContentPart(Part):
    type: str
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict) and (kind := value.get("type", "text")) not in ("text", "image_url"):
            raise ValueError(f"content of type {str(kind)[:40]!r} is not supported")
        return value

    @model_validator(mode="after")
    def _complete(self) -> ContentPart:
        if getattr(self, self.type) is None:
            raise ValueError(f"{self.type} is missing")
        return self

    def plain(self) -> dict[str, Any]:
        if self.image_url is None:
            return {"type": "text", "text": self.text}
        return {"type": "image_url", "image_url": {"url": self.image_url.url}}


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class CalledFunction(Part):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    arguments: str | dict[str, Any] | None = None


class ToolCall(Part):
    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None
    function: CalledFunction

    def plain(self) -> dict[str, Any]:
        function = {"name": self.function.name, "arguments": self.function.arguments}
        return {"type": "function", "function": function} | ({"id": self.id} if self.id else {})


class Message(Part):
    """``content`` given as text parts is joined by newlines, as most templates know text only."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        Annotated[list[ContentPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart])] | None
    ) = None
    name: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: None = None

    @field_validator("role", mode="before")
    @classmethod
    def _known_role(cls, role: Any) -> Any:
        if role == "function":
            raise ValueError("messages of the role 'function' are not supported: use 'tool'")
        return role

    @field_validator("function_call", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("not supported: use tool_calls")
        return value

    def plain(self) -> dict[str, Any]:
        """The message as a chat template knows it."""
        role = "system" if self.role == "developer" else self.role
        seen = any(part.image_url for part in self.content or ())
        parts = [part.plain() for part in self.content or ()]
        text = (
            "\n".join(part["text"] for part in parts) if self.content is not None and not seen else self.refusal or ""
        )
        extras: dict[str, Any] = {
            "name": self.name,
            "reasoning_content": self.reasoning_content,
            "tool_calls": [call.plain() for call in self.tool_calls or ()] or None,
            "tool_call_id": self.tool_call_id,
        }
        message = {"role": role, "content": parts if seen else text}
        return message | {key: value for key, value in extras.items() if value is not None}


class ChatRequest(Fields):
    prompt_field: ClassVar[str] = "messages"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {name: values for name, values in UNSUPPORTED.items() if name not in SERVED}
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    chat_template_kwargs: (
        Annotated[dict[str, str | int | float | bool | None], Field(max_length=MOST_TEMPLATE_FIELDS)] | None
    ) = None
    add_generation_prompt: bool | None = None
    continue_final_message: Continuing | None = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _free_names(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        for name in values or ():
            if name in RESERVED or not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"{name[:40]!r} cannot be set by a request")
        return values

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, count: int | None, facts: Any) -> int | None:
        if count is not None and not facts.data.get("logprobs"):
            raise ValueError("needs logprobs to be true")
        return count

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, most: int | None, facts: Any) -> int | None:
        if most is not None and facts.data.get("max_tokens") not in (None, most):
            raise ValueError("max_tokens says something else")
        return most

    def examine(self) -> None:
        super().examine()
        for index, message in enumerate(self.messages):
            if message.content is None and not message.tool_calls and message.refusal is None:
                raise BadRequest(f"messages[{index}].content is missing", param=f"messages[{index}].content")
        self._examine_end()
        checked(self.tools, tool_choice_of(self.tool_choice))

    def _examine_end(self) -> None:
        if self.continue_final_message and self.add_generation_prompt:
            raise BadRequest("add_generation_prompt begins another answer", param="continue_final_message")
        if self.add_generation_prompt is False and not self.continues:
            raise UnsupportedParameter(
                "only an answer that is continued does without a beginning", param="add_generation_prompt"
            )

    @property
    def continues(self) -> Continuing:
        """As in llama.cpp's server, a last message of the assistant is gone on from, unless the request says no."""
        if self.continue_final_message is not None:
            return self.continue_final_message
        return self.messages[-1].role == "assistant" and not self.add_generation_prompt

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_prompts(self) -> int:
        return 1

    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""
        return Chat(
            [message.plain() for message in self.messages],
            self.sampling(),
            self.most_tokens,
            tuple(self.stop or ()),
            (self.top_logprobs or 0) if self.logprobs else None,
            self.choices,
            bool(self.ignore_eos),
            self.tools or [],
            tool_choice_of(self.tool_choice),
            self.parallel_tool_calls is not False,
            self.output(),
            effort_variables(self.reasoning_effort, info) | (self.chat_template_kwargs or {}),
            self.priority,
            self.continues,
        )

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit the chat. Blocks: the template is rendered here."""
        return self.chat(model.info).start(model)

    def writer(self, opening: Opening) -> ChatWriter:
        return ChatWriter(Head.of("chatcmpl", opening.model, opening.info), opening.reading, bool(self.logprobs))


def tool_choice_of(value: str | Mapping[str, Any] | None) -> str:
    """``auto``, ``none``, ``required``, or ``=name`` for one tool.

    Raises:
        BadRequest: it is none of these.
    """
    if value is None or value in ("auto", "none", "required"):
        return str(value or "auto")
    function = value.get("function") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and value.get("type") == "function" and isinstance(function, Mapping):
        return f"={function.get('name')}"
    raise BadRequest(f"tool_choice is auto, none, required or a function (got {shown(value)})", param="tool_choice")


class ChatWriter:
    """Writes one answer in the shape of chat completions, in pieces or whole."""

    def __init__(self, head: Head, reading: Reading, logprobs: bool) -> None:
        self._head = head
        self._reading = reading
        self._logprobs = logprobs
        self._spoken: dict[int, Spoken] = {}

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        """The first chunk of a choice brings its role, the last one its ``finish_reason`` and no text."""
        if (spoken := self._spoken.get(delta.index)) is None:
            spoken = self._spoken[delta.index] = Spoken(self._reading)
            nothing = None if self._reading.tools else ""
            yield self._chunk(delta.index, {"role": "assistant", "content": nothing}, {"finish_reason": None})
        deltas = [piece for part in spoken.of(delta) for piece in _pieces(part, spoken.num_calls - 1)]
        rest = {"finish_reason": None} | self._logprobs_of((delta,))
        for piece in deltas or ([{}] if delta.logprobs else []):
            yield self._chunk(delta.index, piece, rest)
            rest = {"finish_reason": None}
        if delta.finish_reason is not None:
            yield self._chunk(delta.index, {}, ending(delta, spoken.finish_reason(delta)))

    def _chunk(self, index: int, delta: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, **rest}
        return self._head.object("chat.completion.chunk", [choice])

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        yield with_usage(self._head.object("chat.completion.chunk", []), used, self._reasoning_tokens())

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: by choice."""
        choices = [self._choice(index, pieces) for index, pieces in enumerate(deltas)]
        return with_usage(self._head.object("chat.completion", choices), used, self._reasoning_tokens())

    def _choice(self, index: int, deltas: list[Delta]) -> dict[str, Any]:
        spoken = self._spoken[index] = Spoken(self._reading)
        parts = spoken.all(deltas)
        calls = [_call(made) for made in calls_of(parts)]
        message: dict[str, Any] = {"role": "assistant", "content": content_of(parts), "refusal": None}
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        if reasoning := reasoning_of(parts):
            message["reasoning_content"] = reasoning
        end = ending(deltas[-1], spoken.finish_reason(deltas[-1]))
        return {"index": index, "message": message, "logprobs": None} | self._logprobs_of(deltas) | end

    def _reasoning_tokens(self) -> int:
        return sum(spoken.reasoning_tokens for spoken in self._spoken.values())

    def _logprobs_of(self, pieces: tuple[Delta, ...] | list[Delta]) -> dict[str, Any]:
        if not self._logprobs:
            return {}
        return {"logprobs": chat_logprobs(token for piece in pieces for token in piece.logprobs)}


def _pieces(part: SpokenPart, last: int) -> Iterator[dict[str, Any]]:
    """A call comes in pieces: its name, then its arguments, as they grow or at once. ``last``: the index of the last
    call."""
    if part.reasoning:
        yield {"reasoning_content": part.reasoning}
    if part.content:
        yield {"content": part.content}
    if part.begun is not None:
        yield {"tool_calls": [{"index": part.begun.index, **_call(part.begun)}]}
    if part.arguments:
        yield {"tool_calls": [{"index": last, "function": {"arguments": part.arguments}}]}
    if part.made is not None and not part.made.told:
        begun = _call(part.made)
        begun["function"]["arguments"] = ""
        yield {"tool_calls": [{"index": part.made.index, **begun}]}
        yield {"tool_calls": [{"index": part.made.index, "function": {"arguments": part.made.call.arguments}}]}


def _call(made: MadeCall) -> dict[str, Any]:
    function = {"name": made.call.name, "arguments": made.call.arguments}
    return {"id": made.id, "type": "function", "function": function}
