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

from . import backend
from .binding import binding

BARRIER_SPINS = "20000"
"""How long a thread of the kernels spins at a barrier before it sleeps; libgomp reads it when it is loaded.

Under a millisecond: long enough that no thread sleeps within a step, where waking it costs more than the wait, and a
fifteenth of the default, which keeps a core busy long after each step.
"""

MADV_DONTNEED = 4

_logger = logging.getLogger("ingle.native")
_logger.addHandler(logging.NullHandler())
_LEVELS = {2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}  # ggml_log_level
_log_lock = threading.Lock()
_FLASH_ATTENTION = {"off": 0, "on": 1}  # llama_flash_attn_type
_BY_DEVICE = -1  # LLAMA_FLASH_ATTN_TYPE_AUTO


@functools.cache
def library() -> Any:
    """llama.cpp's C API as bound by llama-cpp-python; initialised once per process, silent."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", BARRIER_SPINS)
    llama_cpp = binding("llama_cpp")
    llama_cpp.llama_backend_init()
    llama_cpp.llama_log_set(silence(llama_cpp.llama_log_callback), None)
    _levels_of(llama_cpp)
    return llama_cpp


@functools.cache
def _levels_of(llama_cpp: Any) -> backend.Levels:
    # Beside a GPU's attention on some layers, one of our own on others makes llama.cpp do without flash attention.
    found = backend.Levels() if llama_cpp.llama_supports_gpu_offload() else backend.begin(llama_cpp._lib)
    backend.check_wanted(found)
    return found


def levels() -> backend.Levels:
    """The levels of CPU that what we compute ourselves in this process is computed for."""
    return _levels_of(library())


@contextlib.contextmanager
def native_log(
    *more: Callable[[Any, None], None], said: list[str] | None = None, quiet: bool = False
) -> Iterator[list[str]]:
    """Collect llama.cpp's errors and warnings of the block, and pass every line to the ``ingle.native`` logger, unless
    ``quiet``. ``more`` are the functions that set the log of libraries beside it; ``said`` is given all lines, those
    that tell sizes, too. Blocks cannot be nested.

    Outside of such blocks the log callback is a native function that needs no interpreter: a thread of the kernels
    may log at any time, even while the interpreter shuts down.
    """
    lib = library()
    lines: list[str] = []

    def keep(level: int, text: bytes | None, _data: object) -> None:
        line = (text or b"").decode("utf-8", "replace").rstrip()
        if line and level in _LEVELS:
            if not quiet:
                _logger.log(_LEVELS[level], "%s", line)
            if said is not None:
                said.append(line)
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


def trim() -> None:
    """Give memory that was freed back to the system, where libc keeps it for later."""
    with contextlib.suppress(AttributeError):  # not glibc
        _libc().malloc_trim(0)


def drop_pages(start: int, length: int) -> None:
    """Give back what is resident of a mapping of a file; where it is touched again it comes from the page cache."""
    with contextlib.suppress(AttributeError):
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), MADV_DONTNEED)


def supports_gpu_offload() -> bool:
    """Whether this build of llama.cpp can place layers on a GPU."""
    return bool(library().llama_supports_gpu_offload())


def flash_attention_type(choice: str = "auto") -> int:
    """``llama_flash_attn_type``: "auto" is on, unless there is a GPU, which llama.cpp then asks for what it can.

    Without one llama.cpp would do without flash attention, as the layer's device, the CPU, is not our attention's.
    """
    return _FLASH_ATTENTION.get(choice, _BY_DEVICE if supports_gpu_offload() else 1)


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
