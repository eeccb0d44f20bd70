"""Every request on its way through: counted, logged, and turned away when the server is full or about to end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Overloaded, internal, response
from .metrics import Metrics

log = logging.getLogger("ingle.server")

MOST_REQUESTS = 256
CLIENT_LEFT = 499
ALWAYS_OPEN = frozenset({"/health", "/metrics"})


class Traffic:
    """The state of the server's doors: how many requests are inside, and whether new ones may come in.

    loading: the models that the server was started with are on their way; requests for them wait.
    """

    def __init__(self) -> None:
        self.running = 0
        self.loading = False
        self.draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def enter(self) -> None:
        self.running += 1
        self._idle.clear()

    def leave(self) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request is inside."""
        await self._idle.wait()

    def objection(self, path: str) -> Overloaded | None:
        """Why a request for ``path`` may not come in now."""
        if path in ALWAYS_OPEN:
            return None
        if self.draining:
            return Overloaded("the server is shutting down")
        if self.running >= MOST_REQUESTS:
            return Overloaded(f"{MOST_REQUESTS} requests are already being answered")
        return None


class Doors:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, traffic: Traffic, metrics: Metrics) -> None:
        self.app = app
        self.traffic = traffic
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        objection = self.traffic.objection(scope["path"])
        app = self.app if objection is None else response(objection, scope["path"])
        status, noting = _noting(send)
        began = time.perf_counter()
        self.traffic.enter()
        try:
            await app(scope, receive, noting)
        except Exception:
            log.exception("%r %r failed", scope["method"], scope["path"])
            if status() != CLIENT_LEFT:
                raise
            await response(internal(), scope["path"])(scope, receive, noting)
        finally:
            self.traffic.leave()
            self._record(scope, status(), time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        ignored = scope.get("state", {}).get("ignored")
        note = f", ignored: {ignored}" if ignored else ""
        level = logging.DEBUG if route in ALWAYS_OPEN else logging.INFO
        log.log(level, "%s %s %d in %.3f s%s", method, route, status, seconds, note)


def _noting(send: Send) -> tuple[Callable[[], int], Send]:
    """``send``, and what status went through it; that of a client that left when there was none."""
    status = CLIENT_LEFT

    async def noting(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    return lambda: status, noting
