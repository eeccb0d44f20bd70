"""Server-sent events, and work that ends when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...convert.errors import IngleError
from .connection import pieces_of
from .errors import internal, payload

log = logging.getLogger("ingle.server")

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 2.0
SEND_DEADLINE_S = 60.0

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

Result = TypeVar("Result")


def event(data: object) -> bytes:
    return b"data: " + _ENCODER.encode(data).encode() + b"\n\n"


def named_event(data: Mapping[str, Any]) -> bytes:
    """An event that says its type, as Anthropic's and OpenAI's newer streams have them."""
    return b"event: " + str(data["type"]).encode() + b"\n" + event(data)


def line(data: object) -> bytes:
    """A line of JSON, as Ollama's streams have them."""
    return _ENCODER.encode(data).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Framing:
    """How a dialect streams. ``failure``: what is sent of an error. Without ``keep_alive`` silence stays silent."""

    encode: Callable[[Any], bytes] = event
    failure: Callable[[IngleError], Mapping[str, Any]] = payload
    done: bytes = DONE
    keep_alive: bytes = KEEP_ALIVE
    media_type: str = "text/event-stream"


class ClientLeft(Exception):
    """The client closed the connection; what it asked for has been given up."""


async def attended(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do ``work`` while listening to the connection. The body of the request must have been read.

    Raises:
        ClientLeft: the client went away first; ``work`` was cancelled and has ended.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


class Gone(Response):
    """The answer to a client that has left: nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        return


class EventStream(Response):
    """Sends ``events`` as they come and a comment when nothing came for a while.

    The status line goes out with the first of these, so a failure before that has a status of its own. A later one
    is an ``{"error": ...}`` event, and no ``[DONE]`` follows it.
    """

    def __init__(
        self,
        events: AsyncIterable[object],
        close: Callable[[], None],
        headers: Mapping[str, str] | None = None,
        framing: Framing | None = None,
    ) -> None:
        self._framing = framing or Framing()
        self.media_type = self._framing.media_type
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._events = events
        self._close = close
        self._num_sent = 0
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await attended(receive, self._send_all(send, pieces_of(scope)))
        except ClientLeft:
            return
        finally:
            self._close()

    async def _send_all(self, send: Send, pieces: Callable[[bytes], bool]) -> None:
        pulse = asyncio.create_task(self._keep_alive(send))
        try:
            async for item in self._events:
                data = self._framing.encode(item)
                if self._num_sent and not self._turn.locked() and pieces(data):
                    self._num_sent += 1
                else:
                    await self._send(send, data)
            if self._framing.done or not self._num_sent:
                await self._send(send, self._framing.done)
        except IngleError as error:
            await self._fail(send, error)
        except ClientLeft:
            raise
        except Exception as error:
            log.exception("a stream failed")
            await self._fail(send, internal(), error)
        finally:
            pulse.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        """A comment whenever nothing else was sent for a while. Looks twice per interval rather than at each chunk."""
        while self._framing.keep_alive:
            seen = self._num_sent
            await asyncio.sleep(KEEP_ALIVE_S / 2)
            if seen == self._num_sent:
                with contextlib.suppress(ClientLeft):  # the sender of the next chunk will find out as well
                    await self._send(send, self._framing.keep_alive)

    async def _send(self, send: Send, data: bytes) -> None:
        """A client that takes nothing for a minute is treated like one that left."""
        try:
            async with self._turn, asyncio.timeout(SEND_DEADLINE_S):
                if not self._num_sent:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                self._num_sent += 1
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError as error:
            raise ClientLeft from error

    async def _fail(self, send: Send, error: IngleError, cause: Exception | None = None) -> None:
        if not self._num_sent:
            raise error from cause
        await self._send(send, self._framing.encode(self._framing.failure(error)))
