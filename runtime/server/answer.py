"""The streams that answer one HTTP request, read as one, and given up together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from ...convert.errors import QueueFull
from ..engine.stream import Stream
from ..request import Delta, Usage
from .chat import Opening
from .pool import Lease

RETRY_S = 0.05

Start = Callable[[], Stream]
Event = tuple[int, Delta] | Exception | None


class Answer:
    """One stream per prompt, at most ``window`` at a time; owns the lease of the model.

    ``async for prompt, delta in answer`` reads all of them, each in its own order. :meth:`close` cancels what is left.
    """

    def __init__(self, lease: Lease, starts: Sequence[Start], window: int) -> None:
        self.lease = lease
        self._starts = starts
        self._window = max(window, 1)
        self._streams: list[Stream] = []
        self._closed = False

    async def accepted(self) -> None:
        """Submit the first prompts and wait until the engine takes them; raises what it has against one."""
        for start in self._starts[: self._window]:
            await self._submit(start)
        for stream in tuple(self._streams):
            await stream.accepted()

    @property
    def opening(self) -> Opening:
        """What is known once it is accepted."""
        first = self._streams[0]
        return Opening(self.lease.name, self.lease.model.info, first.reading, first.prompt_tokens)

    @property
    def usage(self) -> Usage:
        """The sum over all prompts."""
        used = [stream.usage for stream in self._streams]
        names = Usage.__dataclass_fields__
        return Usage(**{name: sum(getattr(usage, name) for usage in used) for name in names})

    def close(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.cancel()
        self.lease.release()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Delta]]:
        if len(self._streams) == len(self._starts) == 1:
            async for delta in self._streams[0]:
                yield 0, delta
        else:
            async for event in self._merged():
                yield event

    async def _merged(self) -> AsyncIterator[tuple[int, Delta]]:
        events: asyncio.Queue[Event] = asyncio.Queue()
        turns = asyncio.Semaphore(self._window)
        pumps = [asyncio.create_task(self._pump(prompt, turns, events)) for prompt in range(len(self._starts))]
        try:
            running = len(pumps)
            while running:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                if event is None:
                    running -= 1
                else:
                    yield event
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, prompt: int, turns: asyncio.Semaphore, events: asyncio.Queue[Event]) -> None:
        """Move one stream's deltas into ``events``; None is its end."""
        async with turns:
            try:
                stream = self._streams[prompt] if prompt < self._window else await self._submit_patiently(prompt)
                async for delta in stream:
                    events.put_nowait((prompt, delta))
                events.put_nowait(None)
            except Exception as error:
                events.put_nowait(error)  # raised where the answer is read

    async def _submit_patiently(self, prompt: int) -> Stream:
        """The later prompts of a list wait outside a full queue: the request itself has been accepted."""
        while True:
            try:
                stream = await self._submit(self._starts[prompt])
                await stream.accepted()
                return stream
            except QueueFull:
                await asyncio.sleep(RETRY_S)

    async def _submit(self, start: Start) -> Stream:
        """Submitting renders a template or writes to a pipe, so it happens in a thread. If the request is given up
        meanwhile, the stream is cancelled as soon as there is one."""
        future = asyncio.get_running_loop().run_in_executor(None, start)
        try:
            stream = await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(_cancel)
            raise
        self._streams.append(stream)
        if self._closed:
            stream.cancel()
        return stream


def _cancel(future: asyncio.Future[Stream]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().cancel()
