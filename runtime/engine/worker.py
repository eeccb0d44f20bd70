"""The child process of an ``EngineProcess``: an ``Engine`` at the end of a socket.

It ends when its parent does: the socket then has no other end, and whatever the engine is doing is left undone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...convert.errors import EngineError, IngleError
from .choice import Flight
from .engine import Engine
from .stream import Event, Finished
from .wire import CALLABLE, Answer, Call, Cancel, Events, Load, Loaded, Submit


class Worker:
    """Serves one engine to one parent.

    Events wait in a pile until the engine's thread has ended its step: one message a step, not one a token, and sent
    by that thread itself, for another one would push a thread of the kernels from its core.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._flights: dict[int, Flight] = {}
        self._lock = threading.RLock()
        self._send_lock = threading.Lock()
        self._pile: list[tuple[int, Event]] = []

    def serve(self, engine: Engine) -> None:
        """Do what the parent asks until it closes the socket or dies."""
        self._engine = engine
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                return
            if isinstance(message, Submit):
                self._submit(message)
            elif isinstance(message, Cancel):
                self._cancel(message)
            elif isinstance(message, Call):
                self._send(Answer(message.id, self._call(message)))

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
        with self._lock:
            self._pile.append((stream, event))
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

    def flush(self) -> None:
        """Send what was emitted; called by the engine after each of its rounds."""
        with self._send_lock:
            with self._lock:
                pile, self._pile = self._pile, []
            if pile:
                self._write(Events(tuple(pile)))

    def _send(self, message: Answer) -> None:
        with self._send_lock:
            self._write(message)

    def _write(self, message: Events | Answer) -> None:
        with contextlib.suppress(OSError):  # the parent is gone: the end of `serve` is near
            self._connection.send(message)


def serve() -> None:
    """The child: its argument is the file descriptor of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    load = connection.recv()
    if not isinstance(load, Load):
        raise SystemExit(2)
    worker = Worker(connection)
    try:
        engine = Engine(Path(load.path), load.options, after_round=worker.flush)
    except IngleError as error:
        connection.send(Loaded(error))
        return
    connection.send(Loaded(engine.info))
    worker.serve(engine)
    os._exit(0)
