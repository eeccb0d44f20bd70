"""A model for tasks in a child process: what native code does to it is an error here, and no end."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from ...convert import child
from ...convert.errors import EngineClosed, EngineCrashed, IngleError, UnsupportedModel
from ..engine.at_exit import close_at_exit
from ..engine.wire import Answer, Call
from ..request import EngineStats, ModelInfo
from .model import Inputs, TaskModel
from .text_stream import Tell
from .work import Work

STOP_S = 5.0
RUN, GIVE_UP, TOKENIZE, DETOKENIZE = "run", "give up", "tokenize", "detokenize"


@dataclass(frozen=True, slots=True)
class Ready:
    """First message from the child."""

    info: ModelInfo
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next text of an answer that is being written."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Running:
    """A task that is being done. ``give_up`` ends it with ``Cancelled``, within milliseconds, unless it is done."""

    outcome: Future[Any]
    give_up: Callable[[], None]

    def result(self) -> Any:
        """Wait for it; raises its error. Giving up waiting gives it up."""
        try:
            return read(self.outcome.result())
        except BaseException:
            if not self.outcome.done():
                self.give_up()
            raise

    async def wait(self) -> Any:
        """The same, for asyncio."""
        try:
            return read(await asyncio.wrap_future(self.outcome))
        except asyncio.CancelledError:
            self.give_up()
            raise


def read(outcome: Any) -> Any:
    """What a task gave; raised if it is an error."""
    if isinstance(outcome, IngleError):
        raise outcome
    return outcome


class TaskProcess:
    """The same as :class:`TaskModel`, in a process of its own. Same errors, and ``EngineCrashed`` when it dies."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._connection, self._process = _spawn()
        self._lock, self._send_lock = threading.Lock(), threading.Lock()
        self._ids = itertools.count()
        self._calls: dict[int, Future[Any]] = {}
        self._tells: dict[int, Tell] = {}
        self._failure: IngleError | None = None
        ready = self._load(path, threads)
        self.info, self.tasks = ready.info, ready.tasks
        self._reader = threading.Thread(target=self._read, name="ingle-tasks-reader", daemon=True)
        self._reader.start()
        close_at_exit(self)

    @property
    def alive(self) -> bool:
        return self._failure is None

    def task(self, name: str, inputs: Inputs, /, **parameters: Any) -> Any:
        """See :meth:`TaskModel.task`. Calls of several threads take turns, step by step."""
        return self.run(name, inputs, parameters)

    def run(self, name: str, inputs: Inputs, parameters: Mapping[str, Any] | None = None) -> Any:
        """See :meth:`TaskModel.run`."""
        return self.begin(name, inputs, parameters).result()

    def begin(
        self, name: str, inputs: Inputs, parameters: Mapping[str, Any] | None = None, tell: Tell | None = None
    ) -> Running:
        """The same, without waiting for it. tell: hears the text of the one answer while it is written, in a thread
        that everybody's answers come through."""
        arguments = {"name": name, "inputs": inputs, "parameters": parameters, "streams": tell is not None}
        return self._asked(RUN, arguments, tell)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """See :meth:`TaskModel.tokenize`."""
        arguments = {"text": text, "add_special": add_special, "parse_special": parse_special}
        ids: list[int] = self._asked(TOKENIZE, arguments).result()
        return ids

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See :meth:`TaskModel.detokenize`."""
        return str(self._asked(DETOKENIZE, {"tokens": list(tokens), "special": special}).result())

    def chat(self, *_arguments: Any, **_settings: Any) -> NoReturn:
        """Not what it is for: raises :class:`UnsupportedModel`, which says what it can do."""
        raise UnsupportedModel(
            f"{self.info.name} does not continue texts", hint=f"it can do {', '.join(self.tasks)}", param="model"
        )

    generate = render = count = chat

    def adapted(self, *names: str) -> TaskProcess:
        """Itself: it takes no adapters."""
        return self if not names else refuse_additions(self.info.name)

    def owned_by(self, owner: str) -> TaskProcess:
        """Itself: it keeps nothing of anybody's texts."""
        return self

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to be attached: it has no streams."""

    def stats(self) -> EngineStats:
        """Nothing: no engine runs it."""
        return EngineStats()

    def close(self) -> None:
        """End the child; what is being done ends with ``EngineClosed``. May be called twice."""
        self._fail(EngineClosed(f"{self.info.name} is closed"))
        _end(self._process)
        if self._reader is not threading.current_thread():
            self._reader.join()
        self._connection.close()

    def _asked(self, method: str, arguments: dict[str, Any], tell: Tell | None = None) -> Running:
        number, answer = next(self._ids), Future[Any]()
        answer.set_running_or_notify_cancel()  # only the child ends it
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._calls[number] = answer
            if tell is not None:
                self._tells[number] = tell
        self._send(Call(number, method, arguments))
        return Running(answer, lambda: self._send(Call(number, GIVE_UP, {})))

    def _load(self, path: Path, threads: int | None) -> Ready:
        try:
            self._connection.send((str(path), threads))
            outcome: Ready | IngleError = self._connection.recv()
        except (EOFError, OSError):
            outcome = self._crash()
        if isinstance(outcome, IngleError):
            _end(self._process)
            self._connection.close()
            raise outcome
        return outcome

    def _send(self, message: Call) -> None:
        """A child that died in between is noticed by the reader, which answers everybody."""
        with self._send_lock:
            try:
                self._connection.send(message)
            except OSError:
                return

    def _read(self) -> None:
        while True:
            try:
                message: Answer | Piece = self._connection.recv()
            except (EOFError, OSError):
                self._fail(self._crash())
                return
            if isinstance(message, Piece):
                if (tell := self._tells.get(message.id)) is not None:
                    tell(message.text)
                continue
            with self._lock:
                waiting = self._calls.pop(message.id, None)
                self._tells.pop(message.id, None)
            if waiting is not None:
                waiting.set_result(message.outcome)

    def _fail(self, error: IngleError) -> None:
        """Answer everybody who waits, and from now on everybody who comes."""
        with self._lock:
            self._failure = self._failure or error
            calls, self._calls = self._calls, {}
            self._tells.clear()
        for answer in calls.values():
            answer.set_result(self._failure)

    def _crash(self) -> EngineCrashed:
        """What is known of the child's end."""
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            code = _end(self._process)
        return EngineCrashed(
            f"the process of the model {child.manner_of_death(code)}",
            hint="send the request again; if it happens again, `ingle verify` checks the model file",
        )


def refuse_additions(name: str) -> NoReturn:
    raise UnsupportedModel(
        f"{name} is a model for tasks, which takes no LoRA adapters, no projector and no draft model"
    )


def serve() -> None:
    """The child: its argument is the file descriptor of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    path, threads = connection.recv()
    try:
        model = TaskModel(Path(path), threads=threads)
    except IngleError as error:
        connection.send(error)
        return
    connection.send(Ready(model.info, model.tasks))
    _Desk(model, connection).serve()


class _Desk:
    """Takes what the parent asks, each in a thread of its own."""

    def __init__(self, model: TaskModel, connection: Connection) -> None:
        self._model = model
        self._connection = connection
        self._sending = threading.Lock()
        self._works: dict[int, Work] = {}
        self._does: Mapping[str, Callable[..., Any]] = {
            RUN: self._done,
            TOKENIZE: lambda _, **given: model.tokenize(**given),
            DETOKENIZE: lambda _, **given: model.detokenize(**given),
        }

    def serve(self) -> NoReturn:
        while True:
            try:
                call: Call = self._connection.recv()
            except (EOFError, OSError):  # the parent has no more to ask, or is gone
                os._exit(0)
            if call.method != GIVE_UP:
                self._works[call.id] = Work()
                threading.Thread(target=self._answer, args=(call,), daemon=True).start()
            elif (work := self._works.get(call.id)) is not None:
                self._model.give_up(work)

    def _answer(self, call: Call) -> None:
        try:
            outcome: Any = self._does[call.method](call.id, **call.arguments)
        except IngleError as error:
            outcome = error
        except Exception as error:  # a fault of ours must be an answer, too, or its caller would wait for ever
            outcome = IngleError(f"{type(error).__name__}: {error}", hint="this is a fault of ingle")
        del self._works[call.id]
        self._send(Answer(call.id, outcome))

    def _done(self, number: int, name: str, inputs: Any, parameters: Mapping[str, Any] | None, streams: bool) -> Any:
        work = self._works[number]
        if not streams:
            return self._model.run(name, inputs, parameters, work)
        return [self._model.tell(name, inputs[0], parameters, lambda text: self._send(Piece(number, text)), work)]

    def _send(self, message: Answer | Piece) -> None:
        with self._sending:
            self._connection.send(message)


def _spawn() -> tuple[Connection, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            child.command(f"{__name__}:serve", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=child.environment(),
        )
    return Connection(ours.detach()), process


def _end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, after some patience with a child that is about to end."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
