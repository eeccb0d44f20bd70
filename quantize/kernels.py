"""ggml's quantizing kernels, each worker a child process of its own: native code may abort, and Python's lock is one.

The parent puts rows into a slot of shared memory and sends a :class:`Task`, one line; the child converts them, writes
them to their place in the file and answers with the CRC-32 of what it wrote, one line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import mmap
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Generic, Self, TypeVar

from ..convert import child as child_process
from ..convert.errors import EngineCrashed, EngineError, UnsupportedModel
from ..convert.ggml import BY_ID

SLOTS_EACH = 2
Work = TypeVar("Work")


@dataclass(frozen=True, slots=True)
class Task:
    """Rows of ``width`` values, at ``slot`` of the shared memory in the element type ``source`` (its id), to be written
    as ``target`` from byte ``offset`` of the file on. importance: where in the shared memory the weights of their
    ``width`` inputs are, as f32; -1 is nowhere."""

    slot: int
    rows: int
    width: int
    source: int
    target: int
    offset: int
    importance: int = -1

    @property
    def line(self) -> bytes:
        """As a worker reads it."""
        given, made = (BY_ID[kind].row_bytes(self.width) for kind in (self.source, self.target))
        return json.dumps({**asdict(self), "given_row_bytes": given, "made_row_bytes": made}).encode() + b"\n"


class Workers(Generic[Work]):
    """``count`` workers that write into ``file``, and the memory that they share: slots of ``slot_bytes`` each."""

    def __init__(self, file: Path, count: int, slot_bytes: int) -> None:
        self._file, self._count = file, count
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._idle: deque[tuple[_Child, int]] = deque()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            size_bytes = self._count * SLOTS_EACH * self._slot_bytes
            shared = stack.enter_context(_memory(size_bytes))
            self.memory = mmap.mmap(shared.fileno(), size_bytes)
            self._complaints: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            self._ready = stack.enter_context(selectors.DefaultSelector())
            for number in range(self._count):
                child = stack.enter_context(_Child(shared.fileno(), self._file, self._complaints))
                self._ready.register(child.answers, selectors.EVENT_READ, child)
                places = range(number * SLOTS_EACH, (number + 1) * SLOTS_EACH)
                self._idle.extend((child, place * self._slot_bytes) for place in places)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, works: Iterable[Work], load: Callable[[Work, int], Task]) -> Iterator[tuple[Work, int]]:
        """Do all ``works`` and yield each with the CRC-32 of what was written, in the order in which they are finished.

        ``load(work, slot)`` puts a work's rows into the shared memory from ``slot`` on.

        Raises:
            UnsupportedModel: rows hold something that is not a number, or quantizing them made such. EngineCrashed: a
            worker died. OSError: the file could not be written.
        """
        busy = 0
        for work in works:
            while not self._idle:
                for done in self._answers():
                    busy -= 1
                    yield done
            child, slot = self._idle.popleft()
            child.send(load(work, slot), work)
            busy += 1
        while busy:
            for done in self._answers():
                busy -= 1
                yield done

    def _answers(self) -> Iterator[tuple[Work, int]]:
        """Wait for at least one."""
        for key, _ in self._ready.select():
            child: _Child = key.data
            for task, work, line in child.answered():
                if not line:
                    raise EngineCrashed(
                        f"a quantizing kernel {child_process.manner_of_death(child.wait())} on {work}: "
                        f"{_last_line(self._complaints)}"
                    )
                answer = json.loads(line)
                if "errno" in answer:
                    raise OSError(answer["errno"], answer["why"])
                if "fault" in answer:
                    raise _refusal(answer["fault"], work, task)
                self._idle.append((child, task.slot))
                yield work, answer["crc"]


class _Child:
    """The parent's end of a worker."""

    def __init__(self, shared: int, file: Path, complaints: IO[bytes]) -> None:
        program = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program), str(shared), str(library_path()), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            pass_fds=(shared,),
            bufsize=0,
        )
        assert self._process.stdin and self._process.stdout  # noqa: S101  (they are pipes)
        self._tasks, self.answers = self._process.stdin, self._process.stdout
        self._sent: deque[tuple[Task, Any]] = deque()
        self._begun = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, task: Task, work: Any) -> None:
        """A child that is dead shows in its answer."""
        self._sent.append((task, work))
        with contextlib.suppress(BrokenPipeError):
            self._tasks.write(task.line)

    def answered(self) -> Iterator[tuple[Any, Any, bytes]]:
        """What was sent and is answered by now, one line each; an empty line is that of a child that has died."""
        more = self.answers.read(1 << 12)
        if not more:
            yield *(self._sent.popleft() if self._sent else (None, "nothing")), b""
        self._begun += more or b""
        *lines, self._begun = self._begun.split(b"\n")
        for line in lines:
            yield *self._sent.popleft(), line

    def wait(self) -> int:
        return self._process.wait()


def _memory(size_bytes: int) -> IO[bytes]:
    """A file that is nowhere."""
    in_memory = hasattr(os, "memfd_create")
    file: IO[bytes] = os.fdopen(os.memfd_create("ingle"), "r+b") if in_memory else tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(size_bytes)
    return file


def _refusal(fault: str, work: Any, task: Task) -> UnsupportedModel:
    kind = BY_ID[task.target].name
    if fault == "input":
        return UnsupportedModel(
            f"{work} holds values that are not finite numbers", hint="the checkpoint is damaged: download it again"
        )
    return UnsupportedModel(f"{work} cannot be stored as {kind}: its scales are not finite", hint="choose a wider type")


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def library_path() -> Path:
    """ggml's base library, as llama-cpp-python has it; nothing is imported to find it.

    Raises:
        EngineError: it is not there.
    """
    package = importlib.util.find_spec("llama_cpp")
    folder = Path(str(package.origin if package else "")).parent / "lib"
    found = next(iter(sorted(folder.glob("*ggml-base.*"))), None)
    if found is None:
        raise EngineError(f"there is no ggml-base library in {folder}", hint="install llama-cpp-python again")
    return found
