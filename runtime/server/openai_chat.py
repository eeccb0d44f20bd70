"""``/v1/chat/completions``: JSON to messages, deltas to JSON. Pure functions and values; the road is in exchange.py."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Usage
from .errors import path
from .openai_fields import MOST_LOGPROBS, Fields, Part
from .openai_shapes import Head, chat_logprobs, ending, with_usage
from .pool import Servable

MOST_MESSAGES = 2048
MOST_TEMPLATE_FIELDS = 16
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
            raise ValueError(f"content of type {str(kind)[:40]!r} is not supported yet")
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


class Message(Part):
    """``content`` given as text parts is joined by newlines, as most templates know text only."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[ContentPart], BeforeValidator(_as_parts)]
    name: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None

    @field_validator("role", mode="before")
    @classmethod
    def _known_role(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise ValueError(f"messages of the role {role!r} are not supported yet")
        return role

    @field_validator("tool_calls", "function_call", "refusal", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        if value not in (None, []):
            raise ValueError("not supported yet")
        return value

    def plain(self) -> dict[str, Any]:
        """The message as a chat template knows it."""
        role = "system" if self.role == "developer" else self.role
        seen = any(part.image_url for part in self.content)
        parts = [part.plain() for part in self.content]
        message = {"role": role, "content": parts if seen else "\n".join(part["text"] for part in parts)}
        extras = {"name": self.name, "reasoning_content": self.reasoning_content}
        return message | {key: value for key, value in extras.items() if value is not None}


class ChatRequest(Fields):
    prompt_field: ClassVar[str] = "messages"

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    chat_template_kwargs: (
        Annotated[dict[str, str | int | float | bool | None], Field(max_length=MOST_TEMPLATE_FIELDS)] | None
    ) = None

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

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_prompts(self) -> int:
        return 1

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit the chat. Blocks: the template is rendered here."""
        return model.chat(
            [message.plain() for message in self.messages],
            sampling=self.sampling(),
            max_tokens=self.most_tokens,
            stop=tuple(self.stop or ()),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            n=self.choices,
            ignore_eos=bool(self.ignore_eos),
            **(self.chat_template_kwargs or {}),
        )

    def writer(self, model: str, info: ModelInfo) -> ChatWriter:
        return ChatWriter(Head.of("chatcmpl", model, info), bool(self.logprobs))


class ChatWriter:
    """Writes one answer in the shape of chat completions, in pieces or whole."""

    def __init__(self, head: Head, logprobs: bool) -> None:
        self._head = head
        self._logprobs = logprobs
        self._begun: set[int] = set()

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        """The first chunk of a choice brings its role, the last one its ``finish_reason`` and no text."""
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            yield self._chunk(delta.index, {"role": "assistant", "content": ""}, {"finish_reason": None})
        if delta.text or delta.logprobs:
            rest = {"finish_reason": None} | self._logprobs_of((delta,))
            yield self._chunk(delta.index, {"content": delta.text}, rest)
        if delta.finish_reason is not None:
            yield self._chunk(delta.index, {}, ending(delta))

    def _chunk(self, index: int, delta: Mapping[str, str], rest: Mapping[str, Any]) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, **rest}
        return self._head.object("chat.completion.chunk", [choice])

    def last_chunk(self, used: Usage) -> dict[str, Any]:
        return with_usage(self._head.object("chat.completion.chunk", []), used)

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: by choice."""
        choices = [self._choice(index, pieces) for index, pieces in enumerate(deltas)]
        return with_usage(self._head.object("chat.completion", choices), used)

    def _choice(self, index: int, pieces: list[Delta]) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None} | self._logprobs_of(pieces) | ending(pieces[-1])

    def _logprobs_of(self, pieces: tuple[Delta, ...] | list[Delta]) -> dict[str, Any]:
        if not self._logprobs:
            return {}
        return {"logprobs": chat_logprobs(token for piece in pieces for token in piece.logprobs)}
