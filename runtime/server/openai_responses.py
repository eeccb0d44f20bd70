"""``/v1/responses``: items to messages, deltas to items and typed events. The road is in exchange.py."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from ...convert.errors import BadRequest, IngleError
from ..chat import Output
from ..chat.toolbox import checked
from ..request import ModelInfo, Sampling
from .asking import Asking
from .chat import Chat, Opening, effort_variables
from .errors import UnsupportedParameter, payload, shown
from .openai_fields import MOST_LOGPROBS, UnitNotZero
from .posted import ModelName, Part
from .responses_items import details_of, items_of, messages_of
from .responses_store import ResponsesStore
from .responses_writer import ResponsesWriter
from .sse import Framing, named_event

MOST_TOOLS = 128
LOGPROBS = "message.output_text.logprobs"


def _failure(error: IngleError) -> dict[str, Any]:
    body = payload(error)["error"]
    return {
        "type": "error",
        "code": body["code"],
        "message": body["message"],
        "param": body["param"],
        "sequence_number": 0,
    }


class Reasoning(Part):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class TextField(Part):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesRequest(Asking):
    prompt_field: ClassVar[str] = "input"
    framing: ClassVar[Framing] = Framing(named_event, _failure, done=b"")
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {
            "background": (None, False),
            "conversation": (None,),
            "prompt": (None,),
            "truncation": (None, "disabled"),
            "max_tool_calls": (None,),
            "context_management": (None, []),
            "moderation": (None,),
            "image": (None,),
        }
    )
    without_effect: ClassVar[tuple[str, ...]] = ()

    model: ModelName = None
    input: str | list[Any]
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: UnitNotZero | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextField | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None

    # Labels for the caller's own books.
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    _before: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The conversation, that of the previous response included."""
        return [*self._before, *items_of(self.input)]

    def ignored(self, strict: bool) -> list[str]:
        unheard = [f"include: {name}" for name in self.include or () if name != LOGPROBS]
        summary = ["reasoning.summary"] if self.reasoning and self.reasoning.summary else []
        verbosity = ["text.verbosity"] if self.text and self.text.verbosity else []
        return super().ignored(strict) + unheard + summary + verbosity + details_of(items_of(self.input))

    def examine(self) -> None:
        messages_of(items_of(self.input))
        checked(self._tools(), self._choice())
        self._output()

    def after(self, store: ResponsesStore) -> ResponsesRequest:
        """With the conversation that ``previous_response_id`` names."""
        if self.previous_response_id is not None:
            self._before = store.find(self.previous_response_id, "previous_response_id").conversation
        return self

    def chat(self, info: ModelInfo) -> Chat:
        """What is asked of the model."""
        values: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        first = [{"role": "system", "content": self.instructions}] if self.instructions else []
        wants_logprobs = self.top_logprobs is not None or LOGPROBS in (self.include or ())
        return Chat(
            [*first, *messages_of(self.items)],
            Sampling(**{name: value for name, value in values.items() if value is not None}),
            self.max_output_tokens,
            logprobs=(self.top_logprobs or 0) if wants_logprobs else None,
            tools=self._tools(),
            tool_choice=self._choice(),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            output=self._output(),
            variables=effort_variables(self.reasoning.effort if self.reasoning else None, info),
        )

    def head(self, opening: Opening) -> dict[str, Any]:
        """What a response says of the request that it answers."""
        return {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "model": opening.model,
            "output": [],
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": self.reasoning.effort if self.reasoning else None, "summary": None},
            "store": self.store is not False,
            "temperature": self.temperature,
            "text": {"format": (self.text.format if self.text else None) or {"type": "text"}},
            "tool_choice": self.tool_choice or "auto",
            "tools": self.tools or [],
            "top_p": self.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": self.user,
        }

    def _tools(self) -> list[dict[str, Any]]:
        for index, tool in enumerate(self.tools or ()):
            if tool.get("type") != "function":
                raise UnsupportedParameter(
                    f"tools of type {shown(tool.get('type'))} are not run here", param=f"tools[{index}].type"
                )
        keys = ("name", "description", "parameters", "strict")
        functions = [{key: tool[key] for key in keys if tool.get(key) is not None} for tool in self.tools or ()]
        return [{"type": "function", "function": function} for function in functions]

    def _choice(self) -> str:
        value = self.tool_choice
        if value is None or value in ("auto", "none", "required"):
            return str(value or "auto")
        if isinstance(value, Mapping) and value.get("type") == "function":
            return f"={value.get('name')}"
        raise BadRequest(f"tool_choice is auto, none, required or a function (got {shown(value)})", param="tool_choice")

    def _output(self) -> Output | None:
        form = self.text.format if self.text else None
        kind = form.get("type") if form else "text"
        if form is None or kind == "text":
            return None
        if kind == "json_object":
            return Output("json", {"type": "object"}, "text.format")
        if kind == "json_schema" and isinstance(form.get("schema"), Mapping):
            return Output("json", form["schema"], "text.format.schema")
        raise BadRequest("text.format must be text, json_object or a json_schema with a schema", param="text.format")


class StoredRequest(ResponsesRequest):
    """A request whose response is kept, unless it says otherwise."""

    _store: ResponsesStore = PrivateAttr()

    def writer(self, opening: Opening) -> ResponsesWriter:
        keeper = self._store if self.store is not False else None
        return ResponsesWriter(self.head(opening), opening, self.items, keeper)


class ResponsesDialect:
    """``/v1/responses`` over a store."""

    prompt_field = "input"

    def __init__(self, store: ResponsesStore) -> None:
        self.store = store

    def parse(self, body: Mapping[str, Any]) -> StoredRequest:
        asked = StoredRequest.parse(body)
        asked.after(self.store)
        asked._store = self.store
        return asked


class InputTokens(ResponsesRequest):
    """``/v1/responses/input_tokens``: the same request, of which only the prompt is looked at."""

    input: str | list[Any] = ""

    def answer(self, model: Any) -> dict[str, Any]:
        return {"object": "response.input_tokens", "input_tokens": self.chat(model.info).count(model)}


class InputTokensDialect:
    def __init__(self, store: ResponsesStore) -> None:
        self.store = store

    def parse(self, body: Mapping[str, Any]) -> InputTokens:
        asked = InputTokens.parse(body)
        asked.after(self.store)
        return asked
