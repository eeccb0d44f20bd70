"""The road of a task, the same in every dialect: validate, lease, work in a thread, write."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from .pool import Pool
from .sse import ClientLeft, Gone, attended

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
    def begin(self, name: str, inputs: Any, parameters: Mapping[str, Any]) -> Running: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A validated request. model: None for the one of requests that name none. write: the name of the model and the
    results of the inputs -> the body of the answer. ignored: fields that nobody knows. keep_alive_s: how long the model
    stays after it, if said."""

    model: str | None
    task: str
    inputs: Sequence[Any]
    write: Callable[[str, list[Any]], Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    keep_alive_s: float | None = None


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
    """What an embedding route takes as its input. Raises ValueError for anything but a text or several."""
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
            body = await attended(request.receive, self._answer(asked))
        except (ClientLeft, ClientDisconnect):
            return Gone()
        headers = {IGNORED_HEADER: request.state.ignored} if request.state.ignored else {}
        return JSONResponse(body, headers=headers)

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
            if not isinstance(lease.model, Tasker):
                _known(asked.task)
                raise UnsupportedModel(
                    f"{lease.name} cannot do {asked.task}: it continues texts",
                    hint="/v1/chat/completions and /v1/completions serve it; tasks need a model that reads",
                )
            results = await (await _begun(lease.model, asked)).wait()
        finally:
            lease.release()
        return asked.write(lease.name, results)


async def _begun(model: Tasker, asked: Asked) -> Running:
    """Beginning writes the inputs to a pipe, so it happens in a thread. If the request is given up meanwhile, so is the
    work as soon as there is some."""
    beginning = asyncio.to_thread(model.begin, asked.task, list(asked.inputs), asked.parameters)
    begun = asyncio.ensure_future(beginning)
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(_give_up)
        raise


def _give_up(begun: asyncio.Future[Running]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().give_up()
