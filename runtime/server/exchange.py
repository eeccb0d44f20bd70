"""The road of a generating request, the same in every dialect: validate, lease, submit, write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from ...convert.errors import ContextLengthExceeded, EngineCrashed
from ..engine.stream import Stream
from ..request import Delta, ModelInfo, Usage
from .answer import Answer
from .body import read_json
from .chat import Opening
from .keeping import of_header
from .metrics import Metrics, Watch
from .pool import Pool, Servable
from .sse import ClientLeft, EventStream, Framing, Gone, attended

IGNORED_HEADER = "X-Ingle-Ignored"


class Writer(Protocol):
    """Puts deltas into a dialect's JSON."""

    def chunks(self, prompt: int, delta: Delta) -> Iterator[dict[str, Any]]: ...
    def last_chunks(self, used: Usage) -> Iterator[dict[str, Any]]: ...
    def whole(self, deltas: list[list[Delta]], used: Usage) -> dict[str, Any]: ...


class Asked(Protocol):
    """A validated request of a dialect."""

    framing: ClassVar[Framing]

    @property
    def model(self) -> str | None: ...
    @property
    def streams(self) -> bool: ...
    @property
    def keep_alive_s(self) -> float | None: ...
    @property
    def choices(self) -> int: ...
    @property
    def num_prompts(self) -> int: ...
    @property
    def includes_usage(self) -> bool: ...
    def ignored(self, strict: bool) -> list[str]: ...
    def check(self, info: ModelInfo) -> None: ...
    def start(self, model: Servable, prompt: int) -> Stream: ...
    def writer(self, opening: Opening) -> Writer: ...


class Dialect(Protocol):
    """The class of such requests. ``prompt_field`` is what a prompt that is too long is blamed on."""

    prompt_field: str

    def parse(self, body: Mapping[str, Any]) -> Asked: ...


class Answerable(Protocol):
    """A validated request that needs no generating."""

    @property
    def model(self) -> str | None: ...
    @property
    def keep_alive_s(self) -> float | None: ...
    def ignored(self, strict: bool) -> list[str]: ...
    def answer(self, model: Servable) -> dict[str, Any]: ...


class Question(Protocol):
    """The class of such requests."""

    def parse(self, body: Mapping[str, Any]) -> Answerable: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """Answers requests from the models of ``pool``."""

    pool: Pool
    metrics: Metrics
    strict: bool = False

    async def respond(self, request: Request, dialect: Dialect, body: Mapping[str, Any] | None = None) -> Response:
        """The answer to a request, streamed if it asks for that; nothing once its client has left. ``body``: when it
        has been read already."""
        watch = Watch(self.metrics)
        try:
            asked = await asyncio.to_thread(dialect.parse, body if body is not None else await read_json(request))
            request.state.ignored = printable(asked.ignored(self.strict))
            return await self._answered(request, asked, _kept(request, asked), watch)
        except (ClientLeft, ClientDisconnect):
            return Gone()
        except ContextLengthExceeded as error:
            error.param = dialect.prompt_field
            raise

    async def consult(self, request: Request, question: Question) -> Response:
        """The answer to a request that a loaded model answers at once."""
        try:
            asked = await asyncio.to_thread(question.parse, await read_json(request))
            request.state.ignored = printable(asked.ignored(self.strict))
            headers = {IGNORED_HEADER: request.state.ignored} if request.state.ignored else {}
            work = self._consulted(asked, _kept(request, asked))
            return JSONResponse(await attended(request.receive, work), headers=headers)
        except (ClientLeft, ClientDisconnect):
            return Gone()

    async def _consulted(self, asked: Answerable, keep_s: float | None) -> dict[str, Any]:
        lease = await self.pool.lease(asked.model, keep_s)
        try:
            return await asyncio.to_thread(asked.answer, lease.model)
        finally:
            lease.release()

    async def _answered(self, request: Request, asked: Asked, keep_s: float | None, watch: Watch) -> Response:
        headers = {IGNORED_HEADER: request.state.ignored} if request.state.ignored else {}
        owner = getattr(request.state, "owner", "")
        answer = await attended(request.receive, self._opened(asked, owner, keep_s))
        writer = asked.writer(answer.opening)
        if asked.streams:
            return EventStream(_events(answer, asked, writer, watch), answer.close, headers, asked.framing)
        try:
            return JSONResponse(await attended(request.receive, _whole(answer, asked, writer, watch)), headers=headers)
        finally:
            answer.close()

    async def _opened(self, asked: Asked, owner: str, keep_s: float | None) -> Answer:
        """An answer; of a new engine where the one there was turns out to have died before it took the request."""
        try:
            return await self._open(asked, owner, keep_s)
        except EngineCrashed:
            return await self._open(asked, owner, keep_s)

    async def _open(self, asked: Asked, owner: str, keep_s: float | None) -> Answer:
        """An answer whose prompts the engine has taken."""
        lease = await self.pool.lease(asked.model, keep_s)
        info = lease.model.info
        model = lease.model.owned_by(owner) if owner else lease.model
        starts = [partial(asked.start, model, prompt) for prompt in range(asked.num_prompts)]
        answer = Answer(lease, starts, info.parallel)
        try:
            await asyncio.to_thread(asked.check, info)
            await answer.accepted()
        except BaseException:
            answer.close()
            raise
        return answer


def _kept(request: Request, asked: Asked | Answerable) -> float | None:
    """How long the model is to be kept after this: the body's word, or the header's."""
    header = of_header(request)
    return header if asked.keep_alive_s is None else asked.keep_alive_s


async def _events(answer: Answer, asked: Asked, writer: Writer, watch: Watch) -> AsyncIterator[dict[str, Any]]:
    async for prompt, delta in answer:
        watch.saw(answer.lease.name, prompt, delta)
        for chunk in writer.chunks(prompt, delta):
            yield chunk
    if asked.includes_usage:
        for chunk in writer.last_chunks(answer.usage):
            yield chunk


async def _whole(answer: Answer, asked: Asked, writer: Writer, watch: Watch) -> dict[str, Any]:
    deltas: list[list[Delta]] = [[] for _ in range(asked.num_prompts * asked.choices)]
    async for prompt, delta in answer:
        watch.saw(answer.lease.name, prompt, delta)
        deltas[prompt * asked.choices + delta.index].append(delta)
    return writer.whole(deltas, answer.usage)


def printable(names: Sequence[str]) -> str:
    """Field names as one line of ASCII, of bounded length: for a header, which no space may end, and for the log."""
    text = ", ".join(name.encode("unicode_escape").decode() for name in names)[:1000]
    return text if text == text.strip() else text.replace(" ", "\\x20")
