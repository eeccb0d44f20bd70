"""The models in memory: loaded on first use, one copy each, the longest idle one given up when room is needed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from ...convert.errors import EngineClosed, IngleError, LoadFailed, QueueFull
from ...convert.progress import Progress
from ..chat import Output
from ..engine.stream import Stream
from ..request import EngineStats, ModelInfo, Priority, Sampling

log = logging.getLogger("ingle.server")

Result = TypeVar("Result")
State = Literal["at work", "ready", "resting"]
"""Of a model in memory; while it rests its cache is given back."""


class Servable(Protocol):
    """What the server needs of a loaded model; :class:`~ingle.runtime.model.Model` is one."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def alive(self) -> bool: ...
    def chat(
        self,
        messages: list[dict[str, Any]],
        *,
        sampling: Sampling = ...,
        max_tokens: int | None = ...,
        stop: Sequence[str] = ...,
        logprobs: int | None = ...,
        n: int = ...,
        ignore_eos: bool = ...,
        tools: list[dict[str, Any]] | None = ...,
        tool_choice: str = ...,
        parallel_tool_calls: bool = ...,
        output: Output | None = ...,
        priority: Priority = ...,
        **template_kwargs: Any,
    ) -> Stream: ...
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        sampling: Sampling = ...,
        max_tokens: int | None = ...,
        stop: Sequence[str] = ...,
        logprobs: int | None = ...,
        n: int = ...,
        ignore_eos: bool = ...,
        output: Output | None = ...,
        priority: Priority = ...,
    ) -> Stream: ...
    def adapted(self, *names: str) -> Servable: ...
    def owned_by(self, owner: str) -> Servable: ...
    def render(self, messages: list[dict[str, Any]], **template_kwargs: Any) -> str: ...
    def count(self, messages: list[dict[str, Any]], **template_kwargs: Any) -> int: ...
    def tokenize(self, text: str, *, add_special: bool = ..., parse_special: bool = ...) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int], *, special: bool = ...) -> str: ...
    def stats(self) -> EngineStats: ...
    def attach(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that can be loaded. ``name`` is what clients call it, ``target`` what the loader is told.

    adapters: of those that are loaded with it, the ones that answer; None where it has none.
    model: the name of the model that is loaded for it; its own, if empty.
    mmproj: the projector of a vision model, where the loader would not find it by itself.
    alias_of: the name of the model that it is another name of; empty for a model itself.
    keep_alive_s: how long it stays in memory when idle, unless a request says otherwise; None for as the server has it.
    type: of its weights, as quantizations are called.
    """

    name: str
    target: str
    size_bytes: int
    created: int
    adapters: tuple[str, ...] | None = None
    model: str = ""
    mmproj: str | None = None
    keep_alive_s: float | None = None
    alias_of: str = ""
    type: str = ""

    @property
    def place(self) -> str:
        """What its loaded model is filed under."""
        return self.model or self.name


class Catalog(Protocol):
    """What is there to be served. All may block; the pool calls them in threads."""

    def list(self) -> Sequence[Installed]: ...
    def find(self, name: str) -> Installed:
        """Raise ``ModelNotFound``, which lists what there is; never fetch anything."""
        ...

    def default(self) -> Installed:
        """The model of a request that names none. Raise ``BadRequest`` where choosing one would be a guess."""
        ...

    def load(self, installed: Installed) -> Servable: ...
    def fetch(self, name: str, progress: Progress) -> Installed:
        """Fetch and build what is not here yet."""
        ...

    def remove(self, name: str) -> None:
        """Raise ``ModelNotFound``, or what keeps it from being removed."""
        ...


class Lease:
    """A model that stays in memory until :meth:`release`."""

    def __init__(self, name: str, place: str, model: Servable, release: Callable[[], None]) -> None:
        self.name = name
        self.place = place
        self.model = model
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release()


@dataclass(eq=False, slots=True)
class _Slot:
    """The place of one model: being loaded, loaded, or failed to load."""

    name: str
    loading: asyncio.Task[Servable]
    users: int = 0
    last_used: int = field(default=0)

    @property
    def model(self) -> Servable | None:
        done = self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None
        return self.loading.result() if done else None

    @property
    def broken(self) -> bool:
        return self.loading.done() and (self.model is None or not self.model.alive)

    def release(self) -> None:
        self.users -= 1


class Pool:
    """At most ``max_models`` in memory, idle ones for ``keep_alive_s``. Lives on one event loop; nothing in it blocks
    that loop."""

    def __init__(self, catalog: Catalog, *, max_models: int, keep_alive_s: float = math.inf) -> None:
        self._catalog = catalog
        self._max_models = max_models
        self._slots: dict[str, _Slot] = {}
        self._clock = itertools.count(1)
        self._closed = False
        self._keep_alive_s = keep_alive_s
        self._kept: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closings: set[asyncio.Task[None]] = set()

    async def lease(self, name: str | None, keep_s: float | None = None) -> Lease:
        """The model of that name, or the one of requests that name none; loaded if need be. ``keep_s``: how long it is
        kept after this and what comes behind it; None leaves that as it is.

        Raises:
            BadRequest: there is none of that kind.
            ModelNotFound: nothing of that name is installed. LoadFailed: it would not load.
            QueueFull: there is room for ``max_models`` only, and all of them are at work.
        """
        installed = await self.find(name)
        slot = self._slot(installed)
        slot.users += 1
        slot.last_used = next(self._clock)
        if keep_s is not None or slot.name not in self._kept:
            usual = self._keep_alive_s if installed.keep_alive_s is None else installed.keep_alive_s
            self._kept[slot.name] = usual if keep_s is None else keep_s
        self._wind(slot.name)
        try:
            model = await asyncio.shield(slot.loading)
        except BaseException:
            self._leave(slot)
            raise
        answering = model if installed.adapters is None else model.adapted(*installed.adapters)
        return Lease(installed.name, installed.place, answering, partial(self._leave, slot))

    def _leave(self, slot: _Slot) -> None:
        slot.release()
        self._wind(slot.name)

    async def installed(self) -> Sequence[Installed]:
        return await asyncio.to_thread(self._catalog.list)

    async def find(self, name: str | None) -> Installed:
        if name is None:
            return await asyncio.to_thread(self._catalog.default)
        return await asyncio.to_thread(self._catalog.find, name)

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    async def forget(self, name: str) -> None:
        """Remove an installed model, from memory too.

        Raises:
            ModelNotFound: there is none. QueueFull: it is at work.
        """
        installed = await self.find(name)
        slot = self._slots.get(installed.place)
        if slot is not None and slot.users:
            raise QueueFull(f"{installed.name} is at work", hint="try again when it is done")
        if slot is not None:
            self._drop(slot)
            await _close(slot)
        await asyncio.to_thread(self._catalog.remove, installed.name)

    def loaded(self) -> dict[str, Servable]:
        """The models in memory that can work, by :attr:`Installed.place`."""
        models = {name: slot.model for name, slot in self._slots.items()}
        return {name: model for name, model in models.items() if model is not None and model.alive}

    def states(self) -> dict[str, State]:
        """What the models in memory do, by :attr:`Installed.place`."""
        return {name: self._state(self._slots[name], model) for name, model in self.loaded().items()}

    def _state(self, slot: _Slot, model: Servable) -> State:
        if slot.users:
            return "at work"
        try:
            return "resting" if model.stats().resting else "ready"
        except IngleError:  # it died just now
            return "ready"

    def keep(self, name: str, seconds: float) -> None:
        """Give the model at a place up when it has been idle for so long; infinity keeps it."""
        if name in self._slots:
            self._kept[name] = seconds
            self._wind(name)

    def _wind(self, name: str) -> None:
        """Start the clock of the model at a place if it is idle, stop it if it is not."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        slot, seconds = self._slots.get(name), self._kept.get(name, math.inf)
        if not self._closed and slot is not None and not slot.users and seconds < math.inf:
            self._timers[name] = asyncio.get_running_loop().call_later(seconds, self._expire, slot, seconds)

    def expiry(self) -> dict[str, float]:
        """Unix time at which each model that is not kept for good is given up, at the earliest where it is at work."""
        now = asyncio.get_running_loop().time()
        finite = {name: seconds for name, seconds in self._kept.items() if seconds < math.inf}
        left = {name: timer.when() - now for name, timer in self._timers.items()}
        return {name: time.time() + left.get(name, seconds) for name, seconds in finite.items()}

    def _expire(self, slot: _Slot, seconds: float) -> None:
        """It is idle, or its clock would have been stopped."""
        self._drop(slot)
        log.info("unloading %s, and what its prefix cache has in memory: it was idle for %.0f s", slot.name, seconds)
        closing = asyncio.create_task(_close(slot))
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    def _drop(self, slot: _Slot) -> None:
        """Nobody finds it any more, and what was said of keeping it is forgotten."""
        del self._slots[slot.name]
        self._kept.pop(slot.name, None)
        if (timer := self._timers.pop(slot.name, None)) is not None:
            timer.cancel()

    async def close(self) -> None:
        """Close all models; requests that still run end with ``EngineClosed``. A model that is still being loaded is
        left alone: its engine ends with this process."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        slots, self._slots = list(self._slots.values()), {}
        await asyncio.gather(*self._closings, return_exceptions=True)
        await asyncio.gather(*(_close(slot) for slot in slots if slot.loading.done()))

    def _slot(self, installed: Installed) -> _Slot:
        if self._closed:
            raise EngineClosed("the server is shutting down")
        slot = self._slots.get(installed.place)
        if slot is not None and not slot.broken:
            return slot
        given_up = [slot] if slot is not None else self._make_room()
        for old in given_up:
            self._drop(old)
        loading = asyncio.create_task(self._load(installed, given_up))
        loading.add_done_callback(_heed)
        self._slots[installed.place] = _Slot(installed.place, loading)
        return self._slots[installed.place]

    def _make_room(self) -> list[_Slot]:
        """The slots to give up so that one more model fits: broken ones, then the longest idle."""
        broken = [slot for slot in self._slots.values() if slot.broken]
        excess = len(self._slots) - len(broken) + 1 - self._max_models
        idle = sorted((s for s in self._slots.values() if not s.users and not s.broken), key=lambda s: s.last_used)
        if excess > len(idle):
            raise QueueFull(
                f"all {self._max_models} models that may be in memory are at work",
                hint="try again, or start the server with a larger --max-models",
            )
        return broken + idle[: max(excess, 0)]

    async def _load(self, installed: Installed, given_up: Iterable[_Slot]) -> Servable:
        for slot in given_up:
            log.info("unloading %s", slot.name)
            await _close(slot)
        log.info("loading %s", installed.place)
        try:
            model = await _in_thread(lambda: self._catalog.load(installed))
        except IngleError:
            raise
        except Exception as error:
            raise LoadFailed(
                f"{installed.name} could not be loaded", hint="the server's log has the details"
            ) from error
        model.attach(asyncio.get_running_loop())
        log.info("loaded %s", installed.place)
        return model


async def _close(slot: _Slot) -> None:
    """Close the model of a slot, also one that is still being loaded."""
    try:
        model = await asyncio.shield(slot.loading)
    except IngleError:
        return
    await _in_thread(model.close)


def _heed(loading: asyncio.Task[Servable]) -> None:
    """Log a failed load once, whether or not anybody still waits for it."""
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.error("loading failed: %s", error, exc_info=error.__cause__)


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a daemon thread of its own: loading takes long, and must not hold up the end of the process."""
    future: concurrent.futures.Future[Result] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="ingle-load", daemon=True).start()
    return await asyncio.wrap_future(future)
