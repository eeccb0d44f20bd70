"""The engine in a child process: HTTP never competes with decoding for the GIL, and a native crash is an error."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from ...convert import child as child_process
from ...convert.errors import EngineClosed, EngineCrashed, IngleError
from ..machine import resident_bytes
from ..options import LoadOptions
from ..request import EngineStats, ModelInfo, Request
from .at_exit import close_at_exit
from .stream import Finished, Stream
from .wire import Answer, Call, Cancel, Events, Load, Loaded, Submit, Wire

STOP_S = 5.0
LAST_WORDS_BYTES = 2000
SMALL_PAGES = {"NUMPY_MADVISE_HUGEPAGE": "0"}
"""numpy asks for huge pages for large arrays, which copies of conversations are. On a virtual machine the first writing
of 46 MB took 133 ms with them and 30 without, which a request waits for where another conversation makes it room."""


_alive: weakref.WeakSet[EngineProcess] = weakref.WeakSet()


def owed_bytes() -> int:
    """What the engines of this program may still take of the memory that seems free."""
    return sum(engine.owed_bytes for engine in list(_alive))


class EngineProcess:
    """The same engine as ``Engine``, in a process of its own. Same errors, and ``EngineCrashed`` when it dies.

    A thread reads what the child says, until :meth:`attach` leaves that to an event loop.
    """

    def __init__(self, path: Path, options: LoadOptions | None = None) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._wire, self._process = _spawn(self._stderr)
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._streams: dict[int, Stream] = {}
        self._calls: dict[int, Future[Any]] = {}
        self._failure: IngleError | None = None
        options = options or LoadOptions()
        self._rest_after_s = options.rest_after_s
        self._info = self._load(Load(str(path), options, owed_bytes()))
        self._used = time.monotonic()
        _alive.add(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._reader = threading.Thread(target=self._read, name="ingle-engine-reader", daemon=True)
        self._reader.start()
        close_at_exit(self)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def alive(self) -> bool:
        return self._failure is None

    def submit(self, request: Request) -> Stream:
        """Queue a request; its answer, or its error, comes through the stream."""
        stream, number = Stream(), next(self._ids)
        stream.on_cancel = lambda: self._cancel(number)
        with self._lock:
            if self._failure is not None:
                stream.put(self._failure)
                return stream
            self._streams[number] = stream
            self._used = time.monotonic()
        self._send(Submit(number, request))
        return stream

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        tokens: list[int] = self._call("tokenize", text=text, add_special=add_special, parse_special=parse_special)
        return tokens

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        return str(self._call("detokenize", tokens=tuple(tokens), special=special))

    def count(self, request: Request) -> int:
        return int(self._call("count", request=request))

    def stats(self) -> EngineStats:
        stats: EngineStats = self._call("stats")
        return stats

    @property
    def owed_bytes(self) -> int:
        """What it was promised of the memory and has not taken yet: its cache takes what it uses, and none at rest."""
        idle_s = 0.0 if self._streams else time.monotonic() - self._used
        if not self.alive or self._info.footprint is None or 0 < self._rest_after_s < idle_s:
            return 0
        resident = resident_bytes(pid=self._process.pid)
        return max(0, self._info.footprint.total - resident) if resident else 0

    def close(self) -> None:
        """End the child; requests in flight end with ``EngineClosed``. May be called twice."""
        self._fail(EngineClosed("the engine was shut down"))
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not threading.current_thread():
            self._reader.join()
        self._hang_up()
        self._stderr.close()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have ``loop``, which calls this, read what the child says: an answer that is awaited there then costs one
        wake-up a step and no thread. The engine must be closed before the loop is."""
        self._wire.stop_waiting()
        self._reader.join()
        with self._lock:
            if self._failure is None:
                self._loop, self._loop_thread = loop, threading.get_ident()
                loop.add_reader(self._wire.fileno(), self._read_ready)

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _load(self, message: Load) -> ModelInfo:
        try:
            self._wire.send(message)
            answer: Loaded = self._wire.receive_one()
            outcome = answer.outcome
        except (EOFError, OSError):
            outcome = self._crash()
        if isinstance(outcome, IngleError):
            self._process.wait()
            self._wire.close()
            self._stderr.close()
            raise outcome
        return outcome

    def _read(self) -> None:
        """The thread: read until the child ends, or until an event loop does it."""
        while self._wire.wait():
            try:
                self._heed(self._wire.receive())
            except (EOFError, OSError):
                self._fail(self._crash())
                return

    def _read_ready(self) -> None:
        """The event loop: something has come."""
        try:
            self._heed(self._wire.receive(block=False))
        except BlockingIOError:
            return
        except (EOFError, OSError):
            self._hang_up()
            threading.Thread(target=lambda: self._fail(self._crash()), name="ingle-engine-crash", daemon=True).start()

    def _hang_up(self) -> None:
        """Close our end of the socket, in the thread of the event loop that reads it."""
        loop, self._loop = self._loop, None
        if loop is None:
            self._wire.close()
        elif self._loop_thread == threading.get_ident():
            loop.remove_reader(self._wire.fileno())
            self._wire.close()
        else:
            self._loop = loop
            with contextlib.suppress(RuntimeError):  # that loop is closed, and reads no more
                loop.call_soon_threadsafe(self._hang_up)

    def _heed(self, messages: Iterable[object]) -> None:
        for message in messages:
            if isinstance(message, Events):
                self._deliver(message)
            elif isinstance(message, Answer):
                waiting = self._calls.pop(message.id, None)
                if waiting is not None:
                    waiting.set_result(message.outcome)

    def _deliver(self, message: Events) -> None:
        for number, event in message.events:
            ended = isinstance(event, Finished | IngleError)
            with self._lock:
                stream = self._streams.pop(number, None) if ended else self._streams.get(number)
                self._used = time.monotonic() if ended else self._used
            if stream is not None:
                stream.put(event)

    def _call(self, method: str, **arguments: Any) -> Any:
        number, answer = next(self._ids), Future[Any]()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._calls[number] = answer
        self._send(Call(number, method, arguments))
        if self._loop is not None and self._loop_thread == threading.get_ident():
            self._read_until(answer)
        outcome = answer.result()
        if isinstance(outcome, IngleError):
            raise outcome
        return outcome

    def _read_until(self, answer: Future[Any]) -> None:
        """The loop's own thread asked: nobody else would read the answer."""
        while not answer.done():
            try:
                self._heed(self._wire.receive())
            except (EOFError, OSError):
                self._fail(self._crash())

    def _cancel(self, number: int) -> None:
        if number in self._streams:
            self._send(Cancel(number))

    def _send(self, message: Submit | Cancel | Call) -> None:
        """A child that died in between is noticed by the reader, which answers everybody."""
        with contextlib.suppress(OSError):
            self._wire.send(message)

    def _fail(self, error: IngleError) -> None:
        """Answer everybody who waits, and from now on everybody who comes."""
        with self._lock:
            self._failure = self._failure or error
            streams, self._streams = self._streams, {}
            calls, self._calls = self._calls, {}
        for stream in streams.values():
            stream.put(self._failure)
        for answer in calls.values():
            answer.set_result(self._failure)

    def _crash(self) -> EngineCrashed:
        """What is known of the child's end."""
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return EngineCrashed(
            f"the engine process {child_process.manner_of_death(code)}{_last_words(self._stderr)}",
            hint="send the request again; if it happens again, `ingle verify` checks the model file",
        )


def _spawn(stderr: IO[bytes]) -> tuple[Wire, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            child_process.command("ingle.runtime.engine.worker:serve", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            env=SMALL_PAGES | child_process.environment(),
        )
    return Wire(ours), process


def _last_words(stderr: IO[bytes]) -> str:
    try:
        size = stderr.seek(0, os.SEEK_END)
        stderr.seek(max(0, size - LAST_WORDS_BYTES))
        lines = stderr.read().decode("utf-8", "replace").strip().splitlines()
    except (OSError, ValueError):  # the engine is being closed, and its file with it
        return ""
    return f": {lines[-1]}" if lines else ""
