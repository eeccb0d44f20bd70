"""The road of a task, the same in every dialect: validate, lease, work in a thread, write."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from ...convert.errors import BadRequest, UnsupportedModel
from .body import read_json
from .errors import shown
from .exchange import IGNORED_HEADER, printable
from .keeping import Kept, of_header
from .pool import Lease, Pool
from .sse import ClientLeft, EventStream, Gone, attended

MOST_INPUTS = 2048


class Running(Protocol):
    """A task that is being done; leaving :meth:`wait` early gives it up."""

    async def wait(self) -> Any: ...
    @property
    def give_up(self) -> Callable[[], None]: ...


@runtime_checkable
class Tasker(Protocol):
    """What the server needs of a model for tasks; :class:`~ingle.runtime.tasks.process.TaskProcess` is one."""

    @property
    def tasks(self) -> Sequence[str]: ...
    def begin(
        self, name: str, inputs: Any, parameters: Mapping[str, Any], tell: Callable[[str], object] | None = ...
    ) -> Running: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A validated request. model: None for the one of requests that name none. write: the name of the model and the
    results of the inputs -> the body of the answer. ignored: fields that nobody knows. keep_alive_s: how long the model
    stays after it, if said. streams: the one answer is wanted while it is written."""

    model: str | None
    task: str
    inputs: Sequence[Any]
    write: Callable[[str, list[Any]], Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    keep_alive_s: float | None = None
    streams: bool = False


class Body(Kept):
    """What a dialect takes for a task."""

    @abstractmethod
    def asked(self) -> Asked:
        """What is asked of the model."""


def _known(task: str) -> None:
    """Raise :class:`BadRequest` unless there is such a task."""
    from ..tasks.catalogue import TASKS

    if task not in TASKS:
        raise BadRequest(f"there is no task {task[:100]!r}", hint=f"there are {', '.join(TASKS)}", param="task")


def texts_of(value: Any) -> list[str]:
    """What Ollama's routes take as their input. Raises ValueError for anything but a text or several."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"must be a text or a list of texts, not token ids (got {shown(value)})")
    return texts


@dataclass(frozen=True, slots=True)
class Tasking:
    """Answers requests for tasks from the models of ``pool``. strict: refuse fields that nobody knows."""

    pool: Pool
    strict: bool = False

    async def respond(self, request: Request, kind: type[Body], **values: str) -> Response:
        """The answer to a request whose body is a ``kind``, with ``values`` of its path."""
        try:
            header = of_header(request)
            asked = await asyncio.to_thread(self._asked, kind, {**await read_json(request), **values}, header)
            request.state.ignored = printable(asked.ignored)
            headers = {IGNORED_HEADER: request.state.ignored} if request.state.ignored else {}
            if asked.streams:
                streaming = await self._streaming(request, asked)
                return EventStream(streaming.events(), streaming.close, headers)
            return JSONResponse(await attended(request.receive, self._answer(asked)), headers=headers)
        except (ClientLeft, ClientDisconnect):
            return Gone()

    def _asked(self, kind: type[Body], body: Mapping[str, Any], header: float | None) -> Asked:
        posted = kind.parse(body)
        asked, ignored = posted.asked(), posted.ignored(self.strict)
        if len(asked.inputs) > MOST_INPUTS:
            raise BadRequest(f"{len(asked.inputs)} inputs are more than {MOST_INPUTS}", param="input")
        kept = posted.keep_alive_s
        return replace(asked, ignored=ignored, keep_alive_s=header if kept is None else kept)

    async def _answer(self, asked: Asked) -> Any:
        lease = await self.pool.lease(asked.model, asked.keep_alive_s)
        try:
            results = await (await _begun(lease, asked)).wait()
        finally:
            lease.release()
        return asked.write(lease.name, results)

    async def _streaming(self, request: Request, asked: Asked) -> Streaming:
        streaming = Streaming(await attended(request.receive, self.pool.lease(asked.model, asked.keep_alive_s)), asked)
        try:
            await attended(request.receive, streaming.begin())
        except BaseException:
            streaming.close()
            raise
        return streaming


class Streaming:
    """The one answer to a request while it is being written."""

    def __init__(self, lease: Lease, asked: Asked) -> None:
        self._lease, self._asked = lease, asked
        self._loop, self._pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()
        self._first: str | None = None
        self._ending: asyncio.Future[Any] | None = None

    async def begin(self) -> None:
        """Until there is a piece of the text. Raises what is wrong with the request."""
        running = await _begun(self._lease, self._asked, self._tell)
        self._ending = asyncio.ensure_future(running.wait())
        self._ending.add_done_callback(lambda _: self._pieces.put_nowait(None))
        self._first = await self._pieces.get()
        if self._first is None:
            await self._ending

    async def events(self) -> AsyncIterator[Any]:
        """The text in pieces, and then what is answered without streaming."""
        about = {"object": "task.delta", "model": self._lease.name, "task": self._asked.task}
        piece = self._first
        while piece is not None:
            yield {**about, "delta": piece}
            piece = await self._pieces.get()
        if self._ending is not None:
            yield self._asked.write(self._lease.name, await self._ending)

    def close(self) -> None:
        """Give the work up, unless it is done."""
        if self._ending is not None:
            self._ending.cancel()
        self._lease.release()

    def _tell(self, piece: str) -> None:
        with contextlib.suppress(RuntimeError):  # a server that has ended hears no more
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


async def _begun(lease: Lease, asked: Asked, tell: Callable[[str], object] | None = None) -> Running:
    """Beginning writes the inputs to a pipe, so it happens in a thread. If the request is given up meanwhile, so is the
    work as soon as there is some."""
    model = lease.model
    if not isinstance(model, Tasker):
        _known(asked.task)
        raise UnsupportedModel(
            f"{lease.name} cannot do {asked.task}: it continues texts",
            hint="/v1/chat/completions and /v1/completions serve it; tasks need a model that reads",
        )
    beginning = asyncio.to_thread(model.begin, asked.task, list(asked.inputs), asked.parameters, tell)
    begun = asyncio.ensure_future(beginning)
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(_give_up)
        raise


def _give_up(begun: asyncio.Future[Running]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().give_up()
