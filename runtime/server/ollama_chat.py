"""Ollama's ``/api/chat`` and ``/api/generate``: lines of JSON. The road is in exchange.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...convert.errors import BadRequest
from ..chat.toolbox import checked
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Usage
from . import pictures
from .chat import Chat, Opening, Part, Spoken, calls_of, content_of, object_of, reasoning_of
from .ollama_fields import OllamaAsking, figures, now, reason_of
from .openai_shapes import chat_logprobs
from .pool import Servable
from .posted import Part as Fields

MOST_MESSAGES = 2048
MOST_TOOLS = 128


class MessageField(Fields):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def plain(self, place: str) -> dict[str, Any]:
        """The message as a chat template knows it."""
        message: dict[str, Any] = {"role": self.role, "content": _content(self.content, self.images, f"{place}.images")}
        extras = {
            "reasoning_content": self.thinking,
            "tool_calls": [{"type": "function", **call} for call in self.tool_calls or ()] or None,
            "name": self.tool_name,
            "tool_call_id": self.tool_call_id,
        }
        return message | {key: value for key, value in extras.items() if value is not None}


class ChatRequest(OllamaAsking):
    messages: Annotated[list[MessageField], Field(min_length=1, max_length=MOST_MESSAGES)]
    tools: Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS)] | None = None

    def examine(self) -> None:
        super().examine()
        checked(self.tools, "auto")
        self._messages()

    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""
        settings = self.settings
        return Chat(
            self._messages(),
            settings.sampling(),
            settings.most_tokens,
            tuple(settings.stop or ()),
            self.wanted_logprobs,
            tools=self.tools or [],
            output=self.output(),
            variables=self.variables(info),
            continues=self.messages[-1].role == "assistant",
        )

    def writer(self, opening: Opening) -> ChatWriter:
        return ChatWriter(opening)

    def _messages(self) -> list[dict[str, Any]]:
        return [message.plain(f"messages[{index}]") for index, message in enumerate(self.messages)]


class GenerateRequest(OllamaAsking):
    """A prompt, put into the template as one message unless ``raw``."""

    prompt_field: ClassVar[str] = "prompt"
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {
            "suffix": (None, ""),
            "template": (None, ""),
            "context": (None, []),
            "width": (None, 0),
            "height": (None, 0),
            "steps": (None, 0),
        }
    )

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: list[str] | None = None

    def examine(self) -> None:
        super().examine()
        self._content()
        if self.raw and self.images:
            raise BadRequest("pictures have no place in a raw prompt", param="images")
        if self.raw and self.system:
            raise BadRequest("system has no place in a raw prompt", param="system")

    @property
    def only_loads(self) -> bool:
        """Without a prompt, Ollama loads the model, or unloads it when ``keep_alive`` is 0."""
        return not self.prompt and not self.system and not self.images

    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""
        settings = self.settings
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Chat(
            [*system, {"role": "user", "content": self._content()}],
            settings.sampling(),
            settings.most_tokens,
            tuple(settings.stop or ()),
            self.wanted_logprobs,
            output=self.output(),
            variables=self.variables(info),
        )

    def start(self, model: Servable, prompt: int) -> Stream:
        """Submit it. Blocks: the template is rendered here."""
        if not self.raw and model.info.chat_templates:
            return super().start(model, prompt)
        asked = self.chat(model.info)
        if self.images:
            raise BadRequest("pictures need a chat template, and this model has none", param="images")
        extras: dict[str, Any] = {"output": asked.output} if asked.output is not None else {}
        return model.generate(
            self.prompt or "",
            sampling=asked.sampling,
            max_tokens=asked.max_tokens,
            stop=asked.stop,
            logprobs=asked.logprobs,
            **extras,
        )

    def writer(self, opening: Opening) -> GenerateWriter:
        return GenerateWriter(opening)

    def _content(self) -> str | pictures.Parts:
        return _content(self.prompt, self.images, "images")


def _content(text: str | None, images: list[str] | None, place: str) -> str | pictures.Parts:
    """Pictures before the text, as Ollama has them. Their kind is not said, and found by looking."""
    seen = [pictures.of_base64(data, f"{place}[{index}]") for index, data in enumerate(images or ())]
    return pictures.content_of([*seen, {"type": "text", "text": text or ""}])


class ChatWriter:
    """Writes one answer line by line, or whole."""

    def __init__(self, opening: Opening) -> None:
        self._model = opening.model
        self._spoken = Spoken(opening.reading)
        self._reason = "stop"

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        parts = [part for part in self._spoken.of(delta) if part.begun is None and not part.arguments]
        if parts or delta.logprobs:
            yield self._line(parts, [delta]) | {"done": False}
        if delta.finish_reason is not None:
            self._reason = reason_of(delta)

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        yield self._line([], []) | figures(used, self._reason)

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: of the one choice."""
        parts = self._spoken.all(deltas[0])
        return self._line(parts, deltas[0]) | figures(used, reason_of(deltas[0][-1]))

    def _line(self, parts: list[Part], deltas: list[Delta]) -> dict[str, Any]:
        tokens = [token for delta in deltas for token in delta.logprobs]
        extras = {"logprobs": chat_logprobs(tokens)["content"]} if tokens else {}
        return {"model": self._model, "created_at": now(), **self._said(parts), **extras}

    def _said(self, parts: list[Part]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": content_of(parts)}
        if reasoning := reasoning_of(parts):
            message["thinking"] = reasoning
        if calls := calls_of(parts):
            message["tool_calls"] = [
                {
                    "id": made.id,
                    "function": {
                        "index": made.index,
                        "name": made.call.name,
                        "arguments": object_of(made.call.arguments),
                    },
                }
                for made in calls
            ]
        return {"message": message}


class GenerateWriter(ChatWriter):
    """The same with a text where a chat has a message."""

    def _said(self, parts: list[Part]) -> dict[str, Any]:
        reasoning = reasoning_of(parts)
        return {"response": content_of(parts)} | ({"thinking": reasoning} if reasoning else {})
