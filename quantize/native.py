"""The door to llama.cpp on this floor: its quantizer, run in a child process.

The parent writes one job to the child's stdin and leaves it open; the child answers with one :class:`Reply`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..convert import child as child_process
from ..convert.errors import BadGGUF, EngineCrashed

POLL_S = 0.1
LOG_LEVEL_ERROR = 4
OVERRIDE_INT, OVERRIDE_STR = 0, 3  # llama_model_kv_override_type


@dataclass(frozen=True, slots=True)
class Job:
    """What the quantizer is asked. ``dry_run`` decides each tensor's type and writes nothing; ``threads`` 0 is all.

    imatrix: the path of an importance matrix. overrides: (regular expression, element type id), the first that fits
    counts. output_type, embedding_type: element type ids, -1 is llama.cpp's choice. notes: metadata to add.
    """

    source: str
    out: str
    native_id: int
    threads: int = 0
    requantize: bool = False
    dry_run: bool = False
    imatrix: str = ""
    overrides: Sequence[tuple[str, int]] = ()
    output_type: int = -1
    embedding_type: int = -1
    pure: bool = False
    notes: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """How it went: llama.cpp's return code (0 is success), all it logged, and its errors among that."""

    code: int
    log: str
    errors: str


def run(job: Job, tick: Callable[[], None] = lambda: None) -> str:
    """Do ``job`` in a child process, calling ``tick`` about ten times a second; returns llama.cpp's log.

    Any exception that passes through here, ``KeyboardInterrupt`` included, kills the child at once.

    Raises:
        BadGGUF: llama.cpp refused the job. EngineCrashed: the child died.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as complaints:
        exit_code = _run_child(job, tick, answer, complaints)
        if exit_code != 0:
            end = child_process.manner_of_death(exit_code)
            raise EngineCrashed(
                f"llama.cpp's quantizer {end} on {job.source}: {_last_line(complaints)}",
                hint="SIGKILL usually means that memory ran out" if exit_code == -signal.SIGKILL else "",
            )
        answer.seek(0)
        reply = Reply(**json.load(answer))
    if reply.code != 0:
        raise BadGGUF(f"llama.cpp refused to quantize {job.source}: {reply.errors.strip() or 'no reason given'}")
    return reply.log


def _run_child(job: Job, tick: Callable[[], None], answer: IO[bytes], complaints: IO[bytes]) -> int:
    """The child's exit code."""
    child = subprocess.Popen(
        child_process.command(f"{__name__}:serve"),
        stdin=subprocess.PIPE,
        stdout=answer,
        stderr=complaints,
        env=child_process.environment(),
    )
    try:
        _send(child, job)
        while True:
            tick()
            try:
                return child.wait(POLL_S)
            except subprocess.TimeoutExpired:
                continue
    finally:
        child.kill()
        child.wait()
        if child.stdin is not None:
            child.stdin.close()


def _send(child: subprocess.Popen[bytes], job: Job) -> None:
    """One line; the pipe stays open. A child that is already dead shows in its exit code."""
    if child.stdin is None:
        return
    try:
        child.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
        child.stdin.flush()
    except BrokenPipeError:
        return


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def serve() -> None:
    """The child: read a job from stdin, do it, answer on stdout, and leave without further ado."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever native code prints is a complaint, not the answer
    with os.fdopen(os.dup(0), "rb", buffering=0) as jobs:
        job = Job(**json.loads(jobs.readline()))
    child_process.end_with_parent()
    json.dump(answered(job), answer)
    answer.flush()
    os._exit(0)


def answered(job: Job) -> dict[str, Any]:
    """Do a job in this process; the fields of its :class:`Reply`."""
    return asdict(_quantize(job))


def _quantize(job: Job) -> Reply:
    import llama_cpp

    log: list[str] = []
    errors: list[str] = []

    def on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        line = text.decode(errors="replace")
        log.append(line)
        if level == LOG_LEVEL_ERROR:
            errors.append(line)

    logger = llama_cpp.llama_log_callback(on_log)  # kept alive until the work is done
    llama_cpp.llama_log_set(logger, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = job.native_id
    params.nthread = job.threads or usable_cpus()
    params.allow_requantize = job.requantize
    params.dry_run = job.dry_run
    params.pure = job.pure
    kept_alive = _choose(llama_cpp, params, job)
    code = llama_cpp.llama_model_quantize(os.fsencode(job.source), os.fsencode(job.out), ctypes.byref(params))
    del kept_alive
    return Reply(code, "".join(log), "".join(errors))


def _choose(llama_cpp: Any, params: Any, job: Job) -> Sequence[Any]:
    """Put what was chosen into ``params``; returns what must live as long as they do."""
    if job.output_type >= 0:
        params.output_tensor_type = job.output_type
    if job.embedding_type >= 0:
        params.token_embedding_type = job.embedding_type
    alive: list[Any] = []
    if job.overrides:
        pairs = [(pattern.encode(), element) for pattern, element in job.overrides]
        kind = llama_cpp.llama_model_tensor_override
        alive.append((kind * (len(pairs) + 1))(*(kind(*pair) for pair in pairs), kind(None, 0)))
        params.tt_overrides = alive[-1]
    if job.imatrix:
        alive += _importance(llama_cpp.llama_model_imatrix_data, Path(job.imatrix))
        params.imatrix = alive[-1]
    if job.notes:
        alive.append(_notes(llama_cpp.llama_model_kv_override, job.notes))
        params.kv_overrides = alive[-1]
    return alive


def _importance(kind: Any, path: Path) -> Sequence[Any]:
    """The values of the matrix, and last the array of records that point to them."""
    from .imatrix import read

    values = {name: entry.weights for name, entry in read(path).entries.items()}
    pointer = ctypes.POINTER(ctypes.c_float)
    records = [kind(name.encode(), array.ctypes.data_as(pointer), array.size) for name, array in values.items()]
    return [*values.values(), (kind * (len(records) + 1))(*records, kind(None, None, 0))]


def _notes(kind: Any, notes: Mapping[str, str | int]) -> Any:
    records = (kind * (len(notes) + 1))()  # the last one has no key: the end
    for record, (key, value) in zip(records, notes.items(), strict=False):
        record.key = key.encode()
        if isinstance(value, str):
            record.tag, record.value.val_str = OVERRIDE_STR, value.encode()
        else:
            record.tag, record.value.val_i64 = OVERRIDE_INT, value
    return records


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
