"""An encoder-decoder's context: texts are read once, and answers to them are written in slots side by side."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError, LoadFailed
from ...convert.ggml import TYPES
from .abort import AbortFlag, heed
from .library import flash_attention_type, library, native_log
from .model import NativeModel


class PairsContext:
    """Reads up to ``source_tokens`` tokens of texts, and writes in ``slots`` slots that hold ``cells`` tokens together.
    Used by one thread at a time.

    Raises:
        LoadFailed: no memory for it.
    """

    def __init__(
        self,
        model: NativeModel,
        source_tokens: int,
        slots: int,
        cells: int,
        threads: int,
        abort: AbortFlag | None = None,
    ) -> None:
        self._lib = library()
        self._abort = abort or AbortFlag()
        self.source_tokens, self.slots, self.cells = source_tokens, slots, cells
        self._vocabulary = model.vocab.size
        self._handle = self._create(model, threads)
        self._memory = self._lib.llama_get_memory(self._handle)
        self._batch = _Batch(max(source_tokens, slots), slots)

    def _create(self, model: NativeModel, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_batch = params.n_ubatch = max(self.source_tokens, self.slots)
        params.n_ctx = max(self.cells, params.n_batch)  # llama.cpp cuts its batches to the size of the cache
        params.n_seq_max = self.slots
        params.kv_unified = True
        params.n_outputs_max = params.n_batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = flash_attention_type("off")
        params.type_k = params.type_v = TYPES["F32"].id
        params.offload_kqv = model.gpu_layers != 0
        params.no_perf = True
        self._abort.watched_by(params)
        with native_log() as lines:
            handle = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            reason = " ".join(lines[-3:]) or "no reason given"
            raise LoadFailed(f"llama.cpp cannot make a context for {self.source_tokens} tokens in {self.slots} slots: "
                             f"{reason}")  # fmt: skip
        return handle

    def encode(self, texts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> None:
        """Read texts, each for the slots that will write of it. What was read and written before is forgotten.

        Raises:
            EngineError: llama.cpp failed. Cancelled: the flag was set that was given to it.
        """
        self._lib.llama_memory_clear(self._memory, True)
        positions = [position for text in texts for position in range(len(text))]
        owners = [owner for text, owner in zip(texts, slots, strict=True) for _ in text]
        self._batch.fill([token for text in texts for token in text], positions, owners)
        status = self._lib.llama_encode(self._handle, self._batch.native)
        heed(status)
        if status != 0:
            raise EngineError(f"llama.cpp could not read {len(positions)} tokens (code {status})")

    def decode(self, tokens: Sequence[int], position: int, slots: Sequence[int]) -> NDArray[np.float32]:
        """Write one token into each of ``slots`` at ``position``; the logits behind it, (slots, vocabulary).

        Raises:
            EngineError: llama.cpp failed. Cancelled: the flag was set that was given to it.
        """
        self._batch.fill(tokens, [position] * len(tokens), [(slot,) for slot in slots])
        status = self._lib.llama_decode(self._handle, self._batch.native)
        heed(status)
        if status != 0:
            raise EngineError(f"llama.cpp could not write {len(tokens)} tokens at {position} (code {status})")
        pointer = self._lib.llama_get_logits(self._handle)
        if not pointer:
            raise EngineError("llama.cpp has no logits")
        numbers: Any = (ctypes.c_float * (len(tokens) * self._vocabulary)).from_address(
            ctypes.addressof(pointer.contents)
        )
        return np.frombuffer(numbers, np.float32).reshape(len(tokens), self._vocabulary).copy()

    def copy(self, source: int, target: int) -> None:
        """Let slot ``target`` go on behind what ``source`` has written; what it wrote itself is let go of."""
        self._lib.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def remove(self, slot: int) -> None:
        """Let go of what a slot has written."""
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def close(self) -> None:
        """Free the context; the model stays loaded."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_free(handle)


class _Batch:
    """A llama_batch over numpy arrays, in which a token may be of several slots."""

    def __init__(self, capacity: int, slots: int) -> None:
        self._tokens, self._positions = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
        self._outputs, self._counts = np.ones(capacity, np.int8), np.ones(capacity, np.int32)
        self._slots = np.zeros((capacity, slots), np.int32)
        self._pointers = self._slots.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._slots.strides[0]
        self.native = library().llama_batch()
        self.native.token = _pointer(self._tokens, ctypes.c_int32)
        self.native.pos = _pointer(self._positions, ctypes.c_int32)
        self.native.logits = _pointer(self._outputs, ctypes.c_int8)
        self.native.n_seq_id = _pointer(self._counts, ctypes.c_int32)
        self.native.seq_id = self._pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))

    def fill(self, tokens: Sequence[int], positions: Sequence[int], owners: Sequence[Sequence[int]]) -> None:
        count = len(tokens)
        self._tokens[:count], self._positions[:count] = tokens, positions
        for index, slots in enumerate(owners):
            self._counts[index] = len(slots)
            self._slots[index, : len(slots)] = slots
        self.native.n_tokens = count


def _pointer(array: NDArray[Any], element: type[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(element))
