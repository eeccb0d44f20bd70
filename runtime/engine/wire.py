"""What the two processes of an engine say to each other, and how. Both ends are ours.

A frame is the length of what follows (4 bytes), its kind (1 byte) and a message: pickled, or, for the text of a step,
which is nearly all that is ever said, marshalled as plain tuples. Pickling a dataclass takes ten times as long.
"""

from __future__ import annotations

import marshal
import os
import pickle
import select
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...convert.errors import IngleError
from ..options import LoadOptions
from ..request import Delta, ModelInfo, Request
from .stream import Event

_HEADER = struct.Struct("=IB")
_MESSAGE, _TEXT = 0, 1
READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Load:
    """First message to the child: what to load. owed_bytes: what others may take of the memory that seems free."""

    path: str
    options: LoadOptions
    owed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """First message from the child: the model is ready, or why it is not."""

    outcome: ModelInfo | IngleError


@dataclass(frozen=True, slots=True)
class Submit:
    stream: int
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    stream: int


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the engine to be answered at once with :class:`Answer`."""

    id: int
    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    id: int
    outcome: Any


@dataclass(frozen=True, slots=True)
class Events:
    """Events of streams, in order."""

    events: tuple[tuple[int, Event], ...]


CALLABLE = frozenset({"tokenize", "detokenize", "count", "stats"})
"""Engine methods that a :class:`Call` may name."""


class Wire:
    """One end of the socket. Several threads may send, one at a time may receive."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()
        self._received = bytearray()
        self._bell, self._rope = os.pipe()
        self._arrival = select.poll()
        self._arrival.register(end, select.POLLIN)
        self._arrival.register(self._bell, select.POLLIN)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """May be called twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            os.close(self._bell)
            os.close(self._rope)

    def send(self, message: object) -> None:
        """Raises OSError when the other end is gone."""
        self._write(_MESSAGE, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def send_events(self, events: Iterable[tuple[int, Event]]) -> None:
        """Like ``send(Events(events))``, cheaper where they are text and nothing else: that of one choice is joined."""
        texts: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = {}
        for stream, event in events:
            if not isinstance(event, Delta) or not is_text(event):
                self.send(Events(tuple(events)))
                return
            text, tokens = texts.get((stream, event.index), ("", ()))
            texts[stream, event.index] = text + event.text, tokens + event.tokens
        if texts:
            self._write(_TEXT, marshal.dumps([(*choice, *said) for choice, said in texts.items()]))

    def wait(self) -> bool:
        """Block until there is something to receive; False once :meth:`stop_waiting` was called.

        Unlike a blocked ``recv`` it sleeps on while the other end reads what was sent: Linux wakes whoever waits at
        the socket then, and a thread that wakes takes a core from the kernels.
        """
        return all(number != self._bell for number, _ in self._arrival.poll())

    def stop_waiting(self) -> None:
        """End :meth:`wait`, now and later; any thread may."""
        os.write(self._rope, b"!")

    def receive(self, *, block: bool = True) -> list[Any]:
        """The messages that are whole by now.

        Raises:
            EOFError: the other end is gone. OSError: so is this one.
            BlockingIOError: nothing was sent, if not ``block``.
        """
        data = self._socket.recv(READ_BYTES, 0 if block else socket.MSG_DONTWAIT)
        if not data:
            raise EOFError
        self._received += data
        messages, at = [], 0
        while len(self._received) - at >= _HEADER.size:
            size, kind = _HEADER.unpack_from(self._received, at)
            end = at + _HEADER.size + size
            if len(self._received) < end:
                break
            messages.append(_decoded(kind, self._received[at + _HEADER.size : end]))
            at = end
        del self._received[:at]
        return messages

    def receive_one(self) -> Any:
        """The first message, which is one that no other follows unasked."""
        messages: list[Any] = []
        while not messages:
            messages = self.receive()
        return messages[0]

    def _write(self, kind: int, payload: bytes) -> None:
        with self._sending:
            self._socket.sendall(_HEADER.pack(len(payload), kind) + payload)


def is_text(event: Event) -> bool:
    """Whether it is a piece of text with nothing else to it."""
    return type(event) is Delta and not event.logprobs and event.finish_reason is None


def _decoded(kind: int, payload: bytearray) -> object:
    if kind == _MESSAGE:
        return pickle.loads(payload)  # noqa: S301 - what our own other half said
    texts = marshal.loads(payload)  # noqa: S302
    return Events(tuple((stream, Delta(index, text, tokens)) for stream, index, text, tokens in texts))
