"""The states of the tokens behind a model's last layer, which is what heads and embeddings begin with."""

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

MOST_TEXTS = 256  # LLAMA_MAX_SEQ
POOLING_NONE = 0  # LLAMA_POOLING_TYPE_NONE: a state for each token, whatever the file asks for


def most_texts(model: NativeModel) -> int:
    """How many texts can be computed together: one where a text's state is not in cells that can be told apart."""
    return MOST_TEXTS if model.can_share_prefix else 1


class StatesContext:
    """Computes up to ``most_texts`` texts of ``capacity`` tokens together, which see nothing of each other. Used by one
    thread at a time.

    Attention is the model's own: in both directions for encoders, causal for decoders. flash: pass by what lies between
    two texts and needs no memory for it, but round keys and values to f16.

    Raises:
        LoadFailed: no memory for texts that long.
    """

    def __init__(
        self, model: NativeModel, capacity: int, threads: int, abort: AbortFlag | None = None, *, flash: bool = False
    ) -> None:
        self._lib = library()
        self._abort = abort or AbortFlag()
        self.capacity = capacity
        self.most_texts = min(most_texts(model), capacity)  # a text has a token at least
        self._handle = self._create(model, threads, flash)
        self._memory = self._lib.llama_get_memory(self._handle)
        self._encodes = self._lib.llama_model_has_encoder(model.handle) or not self._memory
        self._width = int(self._lib.llama_model_n_embd_out(model.handle))
        self._batch = _Batch(capacity)

    def _create(self, model: NativeModel, threads: int, flash: bool) -> Any:
        params = self._lib.llama_context_default_params()
        # A step must fit one ubatch: without a causal mask the tokens of a text cannot be computed apart.
        params.n_ctx = params.n_batch = params.n_ubatch = self.capacity
        params.n_seq_max = self.most_texts
        params.kv_unified = True
        params.n_outputs_max = self.capacity
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = POOLING_NONE
        params.flash_attn_type = flash_attention_type("on" if flash else "off")
        params.type_k = params.type_v = TYPES["F32"].id
        params.offload_kqv = model.gpu_layers != 0
        params.no_perf = True
        self._abort.watched_by(params)
        with native_log() as lines:
            handle = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            reason = " ".join(lines[-3:]) or "no reason given"
            raise LoadFailed(f"llama.cpp cannot make a context for texts of {self.capacity} tokens: {reason}")
        return handle

    def states(
        self, texts: Sequence[Sequence[int]], inputs: NDArray[np.float32] | None = None
    ) -> list[NDArray[np.float32]]:
        """For each text one row per token, shaped (tokens, width).

        inputs: what the model reads in place of the tokens' embeddings, (all tokens, width).

        Raises:
            ValueError: no tokens, more than ``capacity``, or too many texts. EngineError: llama.cpp failed.
            Cancelled: the flag was set that was given to it.
        """
        count = sum(map(len, texts))
        if not all(texts) or not 0 < count <= self.capacity or len(texts) > self.most_texts:
            raise ValueError(
                f"{len(texts)} texts of {count} tokens, where {self.most_texts} of {self.capacity} are possible"
            )
        self._batch.fill(texts, inputs)
        if self._memory:
            self._lib.llama_memory_clear(self._memory, True)
        compute = self._lib.llama_encode if self._encodes else self._lib.llama_decode
        status = compute(self._handle, self._batch.native)
        heed(status)
        if status != 0:
            raise EngineError(f"llama.cpp could not compute {len(texts)} texts of {count} tokens (code {status})")
        ends = np.cumsum([len(text) for text in texts])
        return np.split(self._outputs(count), ends[:-1])

    def close(self) -> None:
        """Free the context; the model stays loaded."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_free(handle)

    def _outputs(self, count: int) -> NDArray[np.float32]:
        pointer = self._lib.llama_get_embeddings(self._handle)
        if not pointer:
            raise EngineError("llama.cpp has no states of the tokens")
        rows: Any = (ctypes.c_float * (count * self._width)).from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(rows, np.float32).reshape(count, self._width).copy()


class _Batch:
    """A llama_batch over numpy arrays; each text is a sequence of its own, from position 0 on."""

    def __init__(self, capacity: int) -> None:
        self._tokens, self._positions = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
        self._outputs, self._counts = np.ones(capacity, np.int8), np.ones(capacity, np.int32)
        self._ids = np.arange(MOST_TEXTS, dtype=np.int32)
        self._id_pointers = np.zeros(capacity, np.uintp)
        self._inputs: NDArray[np.float32] | None = None
        self.native = library().llama_batch()
        self.native.pos = _pointer(self._positions, ctypes.c_int32)
        self.native.logits = _pointer(self._outputs, ctypes.c_int8)
        self.native.n_seq_id = _pointer(self._counts, ctypes.c_int32)
        self.native.seq_id = self._id_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))

    def fill(self, texts: Sequence[Sequence[int]], inputs: NDArray[np.float32] | None) -> None:
        begin = 0
        for index, text in enumerate(texts):
            end = begin + len(text)
            self._tokens[begin:end] = text
            self._positions[begin:end] = np.arange(end - begin)
            self._id_pointers[begin:end] = self._ids.ctypes.data + index * self._ids.itemsize
            begin = end
        self._inputs = None if inputs is None else np.ascontiguousarray(inputs, np.float32)
        self.native.n_tokens = begin
        self.native.token = _pointer(self._tokens, ctypes.c_int32) if self._inputs is None else None
        self.native.embd = None if self._inputs is None else _pointer(self._inputs, ctypes.c_float)


def _pointer(array: NDArray[Any], element: type[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(element))
