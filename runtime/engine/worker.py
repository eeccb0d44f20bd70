"""The child process of an ``EngineProcess``: an ``Engine`` at the end of a socket.

It ends when its parent does: the socket then has no other end, and whatever the engine is doing is left undone.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

from ...convert.errors import EngineError, IngleError
from ..llama.library import trim
from ..llama.zeros import process_is_ours
from .choice import Flight
from .engine import Engine
from .stream import Event, Finished
from .wire import CALLABLE, Answer, Call, Cancel, Load, Loaded, Submit, Wire, is_text

TOGETHER_S = 0.025
"""Nobody reads, and no screen shows, more than this many seconds' text at once: 40 pieces a second."""


class Worker:
    """Serves one engine to one parent.

    Events wait in a pile until the engine's thread has ended its step: one message a step, not one a token, and sent
    by that thread itself, for another one would push a thread of the kernels from its core. So does everybody whom a
    message wakes, down to the client: text that comes faster than :data:`TOGETHER_S` leaves together.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._flights: dict[int, Flight] = {}
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._pile: deque[tuple[int, Event]] = deque()
        self._urgent = False
        self._sent = 0.0

    def serve(self, engine: Engine) -> None:
        """Do what the parent asks until it closes the socket or dies."""
        self._engine = engine
        while True:
            try:
                self._wire.wait()
                messages = self._wire.receive()
            except (EOFError, OSError):
                return
            for message in messages:
                self._do(message)

    def _do(self, message: object) -> None:
        if isinstance(message, Submit):
            self._submit(message)
        elif isinstance(message, Cancel):
            self._cancel(message)
        elif isinstance(message, Call):
            answer = Answer(message.id, self._call(message))
            with contextlib.suppress(OSError):  # the parent is gone: the end of `serve` is near
                self._wire.send(answer)

    def _submit(self, message: Submit) -> None:
        with self._lock:
            flight = self._engine.launch(message.request, partial(self._emit, message.stream))
            if flight is not None:
                self._flights[message.stream] = flight
        self.flush()

    def _cancel(self, message: Cancel) -> None:
        with self._lock:
            flight = self._flights.get(message.stream)
        if flight is not None:
            self._engine.cancel(flight)

    def _emit(self, stream: int, event: Event) -> None:
        self._pile.append((stream, event))
        self._urgent = self._urgent or not is_text(event)
        if isinstance(event, Finished | IngleError):
            with self._lock:
                self._flights.pop(stream, None)

    def _call(self, message: Call) -> Any:
        if message.method not in CALLABLE:
            return EngineError(f"an engine process has no call {message.method!r}")
        try:
            return getattr(self._engine, message.method)(**message.arguments)
        except IngleError as error:
            return error

    def flush(self, goes_on: bool = False) -> None:
        """Send what was emitted; called by the engine after each of its rounds. While it ``goes_on`` quickly, text that
        follows closely upon other text may wait for what comes next."""
        if not self._pile:
            return
        now = time.monotonic()
        if goes_on and not self._urgent and now - self._sent < TOGETHER_S:
            return
        with self._flushing:
            self._sent, self._urgent = now, False
            pile = [self._pile.popleft() for _ in range(len(self._pile))]
            try:
                self._wire.send_events(pile)
            except OSError:
                return  # the parent is gone: the end of `serve` is near


def serve() -> None:
    """The child: its argument is the file descriptor of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = Wire(socket.socket(fileno=int(sys.argv[1])))
    load = wire.receive_one()
    if not isinstance(load, Load):
        raise SystemExit(2)
    worker = Worker(wire)
    process_is_ours()
    try:
        engine = Engine(Path(load.path), load.options, after_round=worker.flush, owed_bytes=load.owed_bytes)
    except IngleError as error:
        wire.send(Loaded(error))
        return
    gc.collect()
    trim()
    gc.freeze()  # what was made by now stays: no collection has to look at it
    wire.send(Loaded(engine.info))
    worker.serve(engine)
    os._exit(0)
