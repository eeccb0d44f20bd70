"""The life of the server process: bind, load, say so, serve, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .app import create_app
from .connection import Connection
from .exchange import Exchange
from .listening import BACKLOG, ServeOptions, bracketed, url_of
from .metrics import Metrics
from .pool import Catalog, Pool
from .security import Rules
from .traffic import Traffic

log = logging.getLogger("ingle.server")

MOST_HEADER_BYTES = 24 * 1024
THREADS = 32
LAST_WORDS_S = 2
POLL_S = 0.01


class Stop:
    """Asked once, the server drains; asked twice, it ends at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def ask(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()


Ready = Callable[[str], None]


def serve(
    listener: socket.socket, options: ServeOptions, catalog: Catalog, models: Sequence[str], ready: Ready
) -> None:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the URL when ``models`` are in memory; the server listens
    before that, and requests for them wait."""

    async def main() -> None:
        stop = Stop()
        with _signals(stop):
            await run(listener, options, catalog, models, ready, stop)

    asyncio.run(main())


async def run(
    listener: socket.socket, options: ServeOptions, catalog: Catalog, models: Sequence[str], ready: Ready, stop: Stop
) -> None:
    """Like :func:`serve`, on a loop that is already running, until ``stop`` is asked."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "ingle-server"))
    pool = Pool(catalog, max_models=options.max_models, keep_alive_s=options.keep_alive_s)
    traffic = Traffic()
    traffic.loading = True  # before anybody can ask
    exchange = Exchange(pool, Metrics(pool.loaded), options.strict)
    server = _Server(create_app(exchange, _rules(options), traffic, admin=options.admin))
    try:
        async with server.on(listener):
            log.info("listening on %s", url_of(listener))
            if await _unless(stop.asked, _preload(pool, models)):
                traffic.loading = False
                ready(url_of(listener))
                await stop.asked.wait()
            await _drain(traffic, pool, stop, options.drain_timeout_s)
    finally:
        listener.close()
        await _unless(stop.insisted, pool.close())


def _rules(options: ServeOptions) -> Rules:
    names = {name.lower() for name in (*options.allowed_hosts, bracketed(options.host))}
    return Rules(frozenset(names), options.api_key, options.further_keys, options.share_cache)


async def _preload(pool: Pool, models: Sequence[str]) -> None:
    for name in models:
        lease = await pool.lease(name)
        lease.release()


async def _drain(traffic: Traffic, pool: Pool, stop: Stop, timeout_s: float) -> None:
    """New requests are refused; those inside may finish, until time is up or the signal comes again."""
    traffic.draining = True
    log.info("draining: %d requests inside, at most %.0f s", traffic.running, timeout_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            if await _unless(stop.insisted, traffic.idle()):
                return
    log.warning("ending %d requests", traffic.running)
    await _unless(stop.insisted, pool.close())  # their streams end with an error that their clients can read
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await traffic.idle()


async def _unless(event: asyncio.Event, work: Awaitable[None]) -> bool:
    """Do ``work`` until ``event``; True when the work was done first."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, its log and its lifespan."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
        super().__init__(config)
        self._ending = asyncio.Event()

    async def main_loop(self) -> None:
        """uvicorn's own wakes ten times a second, for the date (`Connection`) and limits that are not set."""
        await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @contextlib.asynccontextmanager
    async def on(self, listener: socket.socket) -> AsyncIterator[None]:
        """Accepts connections while the block runs."""
        serving = asyncio.create_task(self.serve(sockets=[listener]))
        try:
            while not self.started and not serving.done():
                await asyncio.sleep(POLL_S)
            yield
        finally:
            self.should_exit = True
            self._ending.set()
            await serving


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask ``stop`` while the block runs."""
    loop = asyncio.get_running_loop()

    def ask(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop.ask)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
