"""The states of the tokens behind a model's last layer, which is what heads and embeddings begin with."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError, LoadFailed
from ...convert.ggml import TYPES
from .library import library, native_log
from .model import NativeModel

POOLING_NONE = 0  # LLAMA_POOLING_TYPE_NONE: a state for each token, whatever the file asks for
FLASH_ATTENTION_OFF = 0


class StatesContext:
    """Computes texts of up to ``capacity`` tokens, each alone. Used by one thread at a time.

    Attention is the model's own: in both directions for encoders, causal for decoders.

    Raises:
        LoadFailed: no memory for texts that long.
    """

    def __init__(self, model: NativeModel, capacity: int, threads: int) -> None:
        self._lib = library()
        self.capacity = capacity
        self._handle = self._create(model, threads)
        self._memory = self._lib.llama_get_memory(self._handle)
        self._encodes = self._lib.llama_model_has_encoder(model.handle) or not self._memory
        self._width = int(self._lib.llama_model_n_embd_out(model.handle))
        self._batch = self._lib.llama_batch_init(capacity, 0, 1)

    def _create(self, model: NativeModel, threads: int) -> Any:
        params = self._lib.llama_context_default_params()
        # A text must fit one ubatch: without a causal mask its tokens cannot be computed apart.
        params.n_ctx = params.n_batch = params.n_ubatch = self.capacity
        params.n_seq_max = 1
        params.n_outputs_max = self.capacity
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = POOLING_NONE
        params.flash_attn_type = FLASH_ATTENTION_OFF
        params.type_k = params.type_v = TYPES["F32"].id
        params.offload_kqv = model.gpu_layers != 0
        params.no_perf = True
        with native_log() as lines:
            handle = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            reason = " ".join(lines[-3:]) or "no reason given"
            raise LoadFailed(f"llama.cpp cannot make a context for texts of {self.capacity} tokens: {reason}")
        return handle

    def states(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """One row per token, shaped (tokens, width).

        Raises:
            ValueError: no tokens, or more than ``capacity``. EngineError: llama.cpp failed.
        """
        if not 0 < len(tokens) <= self.capacity:
            raise ValueError(f"{len(tokens)} tokens, where 1 to {self.capacity} are possible")
        self._fill(tokens)
        if self._memory:
            self._lib.llama_memory_clear(self._memory, True)
        compute = self._lib.llama_encode if self._encodes else self._lib.llama_decode
        status = compute(self._handle, self._batch)
        if status != 0:
            raise EngineError(f"llama.cpp could not compute a text of {len(tokens)} tokens (code {status})")
        return np.stack([self._row(index) for index in range(len(tokens))])

    def close(self) -> None:
        """Free the context; the model stays loaded."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(handle)

    def _fill(self, tokens: Sequence[int]) -> None:
        count = len(tokens)
        self._batch.n_tokens = count
        np.ctypeslib.as_array(self._batch.token, (count,))[:] = tokens
        np.ctypeslib.as_array(self._batch.pos, (count,))[:] = np.arange(count)
        np.ctypeslib.as_array(self._batch.n_seq_id, (count,))[:] = 1
        np.ctypeslib.as_array(self._batch.logits, (count,))[:] = 1
        for index in range(count):
            self._batch.seq_id[index][0] = 0

    def _row(self, index: int) -> NDArray[np.float32]:
        pointer = self._lib.llama_get_embeddings_ith(self._handle, index)
        if not pointer:
            raise EngineError(f"llama.cpp has no state of token {index}")
        row: Any = (ctypes.c_float * self._width).from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(row, np.float32).copy()
