"""The loaded native library: start-up, log, and what this build can do."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

BARRIER_SPINS = "20000"
"""How long a thread of the kernels spins at a barrier before it sleeps; libgomp reads it when it is loaded.

Under a millisecond: long enough that no thread sleeps within a step, where waking it costs more than the wait, and a
fifteenth of the default, which keeps a core busy long after each step.
"""

_logger = logging.getLogger("ingle.native")
_logger.addHandler(logging.NullHandler())
_LEVELS = {2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}  # ggml_log_level
_log_lock = threading.Lock()


@functools.cache
def library() -> Any:
    """llama.cpp's C API as bound by llama-cpp-python; initialised once per process, silent."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", BARRIER_SPINS)
    from llama_cpp import llama_cpp

    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(silence(llama_cpp.llama_log_callback), None)
    return llama_cpp


@contextlib.contextmanager
def native_log(*more: Callable[[Any, None], None]) -> Iterator[list[str]]:
    """Collect llama.cpp's errors and warnings of the block, and pass every line to the ``ingle.native`` logger.
    ``more`` are the functions that set the log of libraries beside it.

    Outside of such blocks the log callback is a native function that needs no interpreter: a thread of the kernels
    may log at any time, even while the interpreter shuts down.
    """
    lib = library()
    lines: list[str] = []

    def keep(level: int, text: bytes | None, _data: object) -> None:
        line = (text or b"").decode("utf-8", "replace").rstrip()
        if line and level in _LEVELS:
            _logger.log(_LEVELS[level], "%s", line)
            if level >= 3:
                lines.append(line)

    callback = lib.llama_log_callback(keep)
    with _log_lock:
        for set_log in (lib.llama_log_set, *more):
            set_log(callback, None)
        try:
            yield lines
        finally:
            for set_log in (lib.llama_log_set, *more):
                set_log(silence(lib.llama_log_callback), None)


def supports_gpu_offload() -> bool:
    """Whether this build of llama.cpp can place layers on a GPU."""
    return bool(library().llama_supports_gpu_offload())


def truth_of_bytes(function_type: Any) -> Any:
    """libc's ``strlen`` as a callback of ``function_type``: true while the bytes it is given start with a non-zero.

    It runs without the interpreter, so a decode on another thread can be told to stop while Python is busy.
    """
    return ctypes.cast(_libc().strlen, function_type)


@functools.cache
def silence(function_type: Any) -> Any:
    """A function that ignores what it is given; libc's ``abs`` does no harm with it."""
    return ctypes.cast(_libc().abs, function_type)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("msvcrt" if os.name == "nt" else None)
