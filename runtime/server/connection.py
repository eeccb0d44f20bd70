"""uvicorn's HTTP/1.1 connection, with a deadline for request headers and a limit on how many there may be."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable, MutableMapping
from email.utils import formatdate
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

PIECES = "ingle.pieces"
"""Extension of the ASGI scope: a function that sends a piece of a chunked body at once, or says False."""

HEADERS_DEADLINE_S = 10.0
MOST_CONNECTIONS = 256


def _answer(status: str, code: str, message: str, *headers: str) -> bytes:
    """A whole response for a connection that never becomes a request, in the shape of all our errors."""
    kind = "server_error" if status.startswith("5") else "invalid_request_error"
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    lines = ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", body]).encode()


FULL = _answer("503 Service Unavailable", "overloaded", "too many connections", "Retry-After: 1")
MALFORMED = _answer(
    "400 Bad Request", "invalid_request", "this is not a valid HTTP request, or its headers are too large"
)


class Connection(H11Protocol):
    """Closes itself when headers take longer than ten seconds to arrive, however slowly they drip in."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.write(FULL)
            transport.close()
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        # uvicorn writes down the date once a second, whether anybody asks or not.
        self.server_state.default_headers = [(b"date", _date(int(time.time()))), *self.config.encoded_headers]
        super().data_received(data)
        self._watch_headers()
        if self.cycle is not None and self.cycle.scope is self.scope:
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions[PIECES] = _pieces(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(MALFORMED)
        self.transport.close()

    def _watch_headers(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADERS_DEADLINE_S, self.transport.close)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


@functools.lru_cache(1)
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def _pieces(cycle: RequestResponseCycle) -> Callable[[bytes], bool]:
    """Body data on its way through uvicorn and h11 costs more than all the rest of a streamed token. Between the head
    of a chunked answer and its end, h11 keeps no state of it."""

    def send(data: bytes) -> bool:
        if not cycle.response_started or cycle.response_complete or cycle.disconnected or cycle.flow.write_paused:
            return False
        if cycle.conn.their_http_version != b"1.1":  # HTTP/1.0 has no chunks
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    return send


def pieces_of(scope: MutableMapping[str, Any]) -> Callable[[bytes], bool]:
    """The extension :data:`PIECES` of a request; one that never sends where the server does not offer it."""
    send: Callable[[bytes], bool] = scope.get("extensions", {}).get(PIECES, lambda data: False)
    return send
