"""Writes a response: items that open, grow and close, as typed events or whole."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from ..request import Delta, Usage
from .chat import MadeCall, Opening, Spoken, whole
from .chat import Part as SpokenPart
from .openai_shapes import chat_logprobs
from .responses_store import ResponsesStore


class ResponsesWriter:
    """``store`` keeps the response once it is whole."""

    def __init__(
        self, head: dict[str, Any], opening: Opening, items: list[dict[str, Any]], store: ResponsesStore | None
    ) -> None:
        self._response = head
        self._items = items
        self._store = store
        self._spoken = Spoken(opening.reading)
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._function: dict[str, Any] = {}
        self._number = 0
        self._reason = "stop"

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]:
        if self._number == 0:
            for kind in ("response.created", "response.in_progress"):
                yield self._event(kind, response=dict(self._response))
        logprobs = chat_logprobs(delta.logprobs)["content"] if delta.logprobs else []
        for part in self._spoken.of(delta):
            yield from self._part(part, logprobs)
            logprobs = []
        if delta.finish_reason is not None:
            yield from self._close()
            self._reason = delta.finish_reason

    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]:
        response = self._finished(used)
        yield self._event(f"response.{response['status']}", response=response)

    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]:
        """``deltas``: of the one choice."""
        for delta in deltas[0]:
            for _ in self.chunks(0, delta):
                continue
        return self._finished(used)

    def _finished(self, used: Usage) -> dict[str, Any]:
        cut = self._reason == "length"
        response = self._response | {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": {
                "input_tokens": used.prompt_tokens,
                "input_tokens_details": {"cached_tokens": used.cached_tokens},
                "output_tokens": used.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self._spoken.reasoning_tokens},
                "total_tokens": used.prompt_tokens + used.completion_tokens,
            },
        }
        if self._store is not None:
            self._store.keep(self._items, response)
        return response

    # ---- items ------------------------------------------------------------------------------------------------

    def _part(self, part: SpokenPart, logprobs: list[Any]) -> Iterator[dict[str, Any]]:
        if part.reasoning:
            yield from self._opened("reasoning")
            yield from self._grown("response.reasoning_text.delta", part.reasoning)
        if part.content:
            yield from self._opened("message")
            yield from self._grown("response.output_text.delta", part.content, logprobs=logprobs)
        if part.begun is not None:
            yield from self._begin(part.begun)
        if part.arguments:
            yield self._event("response.function_call_arguments.delta", delta=part.arguments, **self._place())
        if part.made is not None:
            yield from self._call(part.made)

    def _opened(self, kind: str) -> Iterator[dict[str, Any]]:
        """An item of that kind is open behind this."""
        if self._open is not None and self._open["type"] == kind:
            return
        yield from self._close()
        item: dict[str, Any] = {"id": f"{'msg' if kind == 'message' else 'rs'}_{uuid.uuid4().hex}", "type": kind}
        if kind == "message":
            item |= {"role": "assistant", "status": "in_progress", "content": []}
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            item |= {"summary": [], "content": [], "status": "in_progress"}
            part = {"type": "reasoning_text", "text": ""}
        yield self._event("response.output_item.added", output_index=len(self._output), item=_copy(item))
        self._open = item | {"content": [part]}
        yield self._at("response.content_part.added", part=dict(part))

    def _grown(self, kind: str, text: str, **extras: Any) -> Iterator[dict[str, Any]]:
        if self._open is None:
            raise AssertionError("no item is open")
        part = self._open["content"][0]
        part["text"] += text
        if "logprobs" in part:
            part["logprobs"] += extras.get("logprobs", [])
        yield self._at(kind, delta=text, **extras)

    def _close(self) -> Iterator[dict[str, Any]]:
        """The open item, if there is one, is complete."""
        if self._open is None:
            return
        item = self._open | {"status": "completed"}
        part = item["content"][0]
        if item["type"] == "message":
            yield self._at("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
        else:
            yield self._at("response.reasoning_text.done", text=part["text"])
        yield self._at("response.content_part.done", part=dict(part))
        yield self._event("response.output_item.done", output_index=len(self._output), item=_copy(item))
        self._output.append(item)
        self._open = None

    def _begin(self, made: MadeCall) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._function = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": made.id}
        self._function |= {"name": made.call.name, "arguments": "", "status": "in_progress"}
        yield self._event("response.output_item.added", output_index=len(self._output), item=dict(self._function))

    def _place(self) -> dict[str, Any]:
        """Of the function that is being called."""
        return {"item_id": self._function["id"], "output_index": len(self._output)}

    def _call(self, made: MadeCall) -> Iterator[dict[str, Any]]:
        arguments = made.call.arguments
        if not made.told:
            yield from self._begin(made)
            yield self._event("response.function_call_arguments.delta", delta=arguments, **self._place())
        done = self._function | {"arguments": arguments, "status": "completed" if whole(arguments) else "incomplete"}
        yield self._event(
            "response.function_call_arguments.done", arguments=arguments, name=made.call.name, **self._place()
        )
        yield self._event("response.output_item.done", output_index=len(self._output), item=done)
        self._output.append(done)

    def _at(self, kind: str, **fields: Any) -> dict[str, Any]:
        """An event about the part of the open item."""
        item = self._open or {}
        return self._event(kind, item_id=item["id"], output_index=len(self._output), content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"content": [dict(part) for part in item["content"]]}
