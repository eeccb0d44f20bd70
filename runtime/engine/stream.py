"""One request's answer while it is being written: read it from a thread or from asyncio, cancel it from anywhere."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from ...convert.errors import Cancelled, IngleError
from ..chat.reader import Reading
from ..request import Delta, Usage

if TYPE_CHECKING:
    import asyncio


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request passed every check and waits for its turn."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """All choices are complete."""

    usage: Usage


Event = Accepted | Delta | Finished | IngleError


class Stream:
    """The deltas of one request, in order: ``for`` and ``async for`` read the same queue.

    ``reading`` is how the text is to be taken apart (:mod:`ingle.runtime.chat.reader`).

    The engine's side calls :meth:`put`, which never blocks, and sets ``on_cancel``. Errors travel the same road as
    deltas and are raised where the stream is read. Leaving a ``with`` block, or a loop before its end, cancels the
    request.
    """

    def __init__(self) -> None:
        self.on_cancel: Callable[[], None] | None = None
        self.reading = Reading()
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._waiters: list[_Waiter] = []
        self._accepted: Accepted | None = None
        self._error: IngleError | None = None
        self._ended = False
        self._usage = Usage()

    def put(self, *events: Event) -> None:
        """Append events (engine side, any thread)."""
        with self._changed:
            self._events.extend(events)
            waiters, self._waiters = self._waiters, []
            self._changed.notify_all()
        for waiter in waiters:
            waiter.wake()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; 0 until the request is accepted."""
        return self._accepted.prompt_tokens if self._accepted else 0

    @property
    def usage(self) -> Usage:
        """What the request cost; complete once the stream is read to its end."""
        return self._usage

    def cancel(self) -> None:
        """Stop the work, now. Reading on raises ``Cancelled`` unless the answer was already complete."""
        if not self._ended and self.on_cancel is not None:
            self.on_cancel()

    close = cancel

    def wait_accepted(self) -> None:
        """Block until the request is accepted; raises its error otherwise."""
        while not self._take_accepted():
            self._wait()

    async def accepted(self) -> None:
        """Like :meth:`wait_accepted`, for asyncio."""
        while not self._take_accepted():
            await self._wait_async()

    def __iter__(self) -> Iterator[Delta]:
        try:
            while not self._finished():
                if (delta := self._take()) is None:
                    self._wait()
                else:
                    yield delta
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            while not self._finished():
                if (delta := self._take()) is None:
                    await self._wait_async()
                else:
                    yield delta
        finally:
            self.cancel()

    def text(self) -> str:
        """Read to the end and return the text of the first choice."""
        return "".join(delta.text for delta in self if delta.index == 0)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _finished(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._ended

    def _take_accepted(self) -> bool:
        """Move a leading ``Accepted`` or error out of the queue; True once the request is accepted."""
        with self._changed:
            if self._accepted is None and self._events and not isinstance(self._events[0], Delta):
                self._settle(self._events.popleft())
        if self._error is not None:
            raise self._error
        return self._accepted is not None

    def _take(self) -> Delta | None:
        with self._changed:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Delta):
                    return event
                self._settle(event)
                if self._ended:
                    return None
        return None

    def _settle(self, event: Event) -> None:
        if isinstance(event, Accepted):
            self._accepted = event
        elif isinstance(event, Finished):
            self._usage, self._ended = event.usage, True
        elif isinstance(event, IngleError):
            self._error, self._ended = event, True

    def _wait(self) -> None:
        with self._changed:
            while not self._events and not self._ended:
                self._changed.wait()

    async def _wait_async(self) -> None:
        import asyncio  # with all of TLS behind it: an engine in a process of its own has no use for that

        waiter = _Waiter(asyncio.get_running_loop(), threading.get_ident())
        with self._changed:
            if self._events or self._ended:
                return
            self._waiters.append(waiter)
        await waiter.woken


class _Waiter:
    """A coroutine that waits on an event loop, which runs in ``thread``."""

    __slots__ = ("_loop", "_thread", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self._loop = loop
        self._thread = thread
        self.woken: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        if self._thread == threading.get_ident():
            self._settle()
        else:
            with contextlib.suppress(RuntimeError):  # that event loop is closed: nobody waits there any more
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


__all__ = ["Accepted", "Cancelled", "Event", "Finished", "Stream"]
