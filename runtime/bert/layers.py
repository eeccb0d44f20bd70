"""Texts read by the compiled layers: each by a thread of its own, or one step by several together."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import Cancelled, UnsupportedModel
from ...convert.gguf import GGUF
from ..llama.abort import AbortFlag
from . import native
from .weights import Weights

Array = NDArray[np.float32]
ALIGNED = 64
FEWEST_ROWS = 24
"""Of a thread that reads a step with others: with less it costs more to meet them than it gains."""


class Layers:
    """The layers of a file. May be used by several threads at once.

    way: one of :func:`native.ways`.

    Raises:
        UnsupportedModel: this CPU cannot compute in that way, or the layers were not compiled.
    """

    def __init__(self, file: GGUF, way: str, abort: AbortFlag | None = None) -> None:
        layers = native.library()
        if layers is None or way not in native.ways():
            raise UnsupportedModel(f"no compiled layers for {way!r} here")
        self._library, self._way = layers, native.ways()[way]
        self._weights = Weights(file)
        self._abort = abort or AbortFlag()

    def states(
        self,
        texts: Sequence[Sequence[int]],
        inputs: Array | None = None,
        threads: int = 1,
        pool: ThreadPoolExecutor | None = None,
    ) -> list[Array]:
        """For each text one row per token, shaped (tokens, width).

        inputs: what the model reads in place of the tokens' embeddings, (all tokens, width). threads: so many of
        ``pool`` read together, where there are tokens enough.

        Raises:
            Cancelled: the flag was set that was given to it.
        """
        states = self._weights.embedded(texts, inputs)
        lengths = np.array([len(text) for text in texts], np.int32)
        arrived = np.zeros(1, np.int32)
        together = max(1, min(threads, len(states) // FEWEST_ROWS)) if pool else 1
        work = native.Work(
            lengths=lengths.ctypes.data,
            texts=len(texts),
            tokens=len(states),
            longest=int(lengths.max()),
            threads=together,
            states=states.ctypes.data,
            stop=self._abort.address,
            arrived=arrived.ctypes.data,
        )
        bert = ctypes.addressof(self._weights.bert)
        scratch = np.zeros(self._library.scratch_bytes(bert, ctypes.addressof(work)) + ALIGNED, np.uint8)
        work.scratch = scratch.ctypes.data + -scratch.ctypes.data % ALIGNED

        def read(thread: int) -> bool:
            return bool(self._library.read_texts(self._way, bert, ctypes.addressof(work), thread))

        ended = list(pool.map(read, range(together))) if pool and together > 1 else [read(0)]
        if any(ended):
            raise Cancelled("cancelled")
        return np.split(states, np.cumsum(lengths)[:-1])
