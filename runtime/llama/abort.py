"""A flag that makes a running computation stop between two nodes of its graph, without any thread of Python's."""

from __future__ import annotations

import ctypes
from typing import Any

from ...convert.errors import Cancelled
from .library import library, truth_of_bytes

ABORTED = 2  # what llama_decode and llama_encode return


class AbortFlag:
    """Outlives the contexts that look at it, so it may be set at any time, by any thread."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)  # an empty text, or one of one byte: libc's strlen is the callback

    def set(self) -> None:
        self._bytes[0] = b"\x01"

    def clear(self) -> None:
        self._bytes[0] = b"\x00"

    @property
    def address(self) -> int:
        """Of a byte that is not 0 while it is set."""
        return ctypes.addressof(self._bytes)

    def watched_by(self, params: Any) -> None:
        """Let a context that is made of ``params`` look at it."""
        params.abort_callback = truth_of_bytes(library().ggml_abort_callback)
        params.abort_callback_data = self.address


def heed(status: int) -> None:
    """Raise :class:`Cancelled` where a computation ended because it was told to."""
    if status == ABORTED:
        raise Cancelled("cancelled")
