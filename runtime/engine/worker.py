"""The child process of an ``EngineProcess``: an ``Engine`` at the end of a socket.

It ends when its parent does: the socket then has no other end, and whatever the engine is doing is left undone.
"""

from __future__ import annotations

import os
import queue
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
    """Serves one engine to one parent."""

    def __init__(self, connection: Connection, engine: Engine) -> None:
        self._connection = connection
        self._engine = engine
        self._flights: dict[int, Flight] = {}
        self._lock = threading.RLock()
        self._outbox: queue.SimpleQueue[tuple[int, Event] | Answer] = queue.SimpleQueue()
        threading.Thread(target=self._send, name="ingle-outbox", daemon=True).start()

    def serve(self) -> None:
        """Do what the parent asks until it closes the socket or dies."""
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
                self._outbox.put(Answer(message.id, self._call(message)))

    def _submit(self, message: Submit) -> None:
        with self._lock:
            flight = self._engine.launch(message.request, partial(self._emit, message.stream))
            if flight is not None:
                self._flights[message.stream] = flight

    def _cancel(self, message: Cancel) -> None:
        with self._lock:
            flight = self._flights.get(message.stream)
        if flight is not None:
            self._engine.cancel(flight)

    def _emit(self, stream: int, event: Event) -> None:
        self._outbox.put((stream, event))
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

    def _send(self) -> None:
        """Everything that piled up since the last message goes into the next: one write a step, not one a token."""
        while True:
            pile = [self._outbox.get()]
            while not self._outbox.empty():
                pile.append(self._outbox.get())
            try:
                for answer in pile:
                    if isinstance(answer, Answer):
                        self._connection.send(answer)
                events = tuple(item for item in pile if not isinstance(item, Answer))
                if events:
                    self._connection.send(Events(events))
            except OSError:
                return


def serve() -> None:
    """The child: its argument is the file descriptor of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    load = connection.recv()
    if not isinstance(load, Load):
        raise SystemExit(2)
    try:
        engine = Engine(Path(load.path), load.options)
    except IngleError as error:
        connection.send(Loaded(error))
        return
    connection.send(Loaded(engine.info))
    Worker(connection, engine).serve()
    os._exit(0)
