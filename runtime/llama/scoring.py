"""A context that reads many tokens at once and gives the logits behind each: what measuring a model needs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError, LoadFailed
from .library import flash_attention_type, library, native_log
from .model import NativeModel

UBATCH_ROWS = 512

Watch = Callable[[int, bool], bool]
"""Called with the address of each node of the graph: first to ask whether its result is wanted (True), then with it."""


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """sequences: slots; length: most tokens of one sequence; rows: most tokens of one step; threads: of the kernels."""

    sequences: int
    length: int
    rows: int
    threads: int


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence, to be computed at positions ``start`` and after; logits are wanted from ``first`` on."""

    slot: int
    start: int
    tokens: NDArray[np.int32]
    first: int


class ScoringContext:
    """Computes steps of tokens. Used by one thread at a time.

    Set up as llama-perplexity sets up its own (a cache of f16 in a part per sequence, llama.cpp's choice of
    attention), so that its figures are the ones to compare with.

    Raises:
        LoadFailed: no memory for the cache.
    """

    def __init__(self, model: NativeModel, options: ScoringOptions, watch: Watch | None = None) -> None:
        self._lib = library()
        self._vocab_size = model.vocab.size
        self._failure: BaseException | None = None
        self._watch: Any = self._lib.ggml_backend_sched_eval_callback(self._guarded(watch)) if watch else None
        self._handle = self._create(model, options)
        self._memory = self._lib.llama_get_memory(self._handle)
        self._batch = self._lib.llama_batch_init(options.rows, 0, 1)

    def _create(self, model: NativeModel, options: ScoringOptions) -> Any:
        params = self._lib.llama_context_default_params()
        params.n_ctx = options.sequences * options.length
        params.n_seq_max = options.sequences
        params.n_batch = params.n_outputs_max = options.rows
        params.n_ubatch = min(options.rows, UBATCH_ROWS)
        params.n_threads = params.n_threads_batch = options.threads
        params.flash_attn_type = flash_attention_type()
        params.offload_kqv = model.gpu_layers != 0
        params.no_perf = True
        if self._watch is not None:
            params.cb_eval = self._watch
        with native_log() as lines:
            handle = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            raise LoadFailed(
                f"llama.cpp cannot make a context of {options.sequences} x {options.length} tokens: "
                f"{' '.join(lines[-3:]) or 'no reason given'}",
                hint="a smaller --ctx needs less memory",
            )
        return handle

    def compute(self, spans: Sequence[Span], *, fresh: bool) -> NDArray[np.float32]:
        """The logits that ``spans`` ask for, in their order: a view of shape (logits, vocabulary) until the next step.

        ``fresh`` forgets all sequences first.

        Raises:
            EngineError: llama.cpp failed. Whatever ``watch`` raised.
        """
        if fresh and self._memory:
            self._lib.llama_memory_clear(self._memory, True)
        outputs = self._fill(spans)
        with self._interruptible():
            status = self._lib.llama_decode(self._handle, self._batch)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if status != 0:
            raise EngineError(f"llama.cpp could not compute a step of {self._batch.n_tokens} tokens (code {status})")
        if not outputs:
            return np.zeros((0, self._vocab_size), np.float32)
        pointer = self._lib.llama_get_logits(self._handle)
        if not pointer:
            raise EngineError(f"llama.cpp gave no logits for a step of {self._batch.n_tokens} tokens")
        return np.ctypeslib.as_array(pointer, (outputs, self._vocab_size))

    def close(self) -> None:
        """Free the context; the model stays loaded."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(handle)

    def _guarded(self, watch: Watch) -> Callable[[int | None, bool, object], bool]:
        """``watch`` as C may call it: what it raises ends the step, and :meth:`compute` raises it."""

        def call(node: int | None, ask: bool, _data: object) -> bool:
            if self._failure is None:
                try:
                    return watch(node or 0, ask)
                except BaseException as failure:
                    self._failure = failure
            return False

        return call

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C ends the step. Raised inside a callback, KeyboardInterrupt would be lost in C, and its node too."""
        usual = signal.getsignal(signal.SIGINT)
        if self._watch is None or not callable(usual) or threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(_number: int, _frame: object) -> None:
            self._failure = self._failure or KeyboardInterrupt()

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def _fill(self, spans: Sequence[Span]) -> int:
        count = sum(len(span.tokens) for span in spans)
        positions = np.concatenate([np.arange(span.start, span.start + len(span.tokens)) for span in spans])
        wanted = positions >= np.repeat([span.first for span in spans], [len(span.tokens) for span in spans])
        self._batch.n_tokens = count
        np.ctypeslib.as_array(self._batch.token, (count,))[:] = np.concatenate([span.tokens for span in spans])
        np.ctypeslib.as_array(self._batch.pos, (count,))[:] = positions
        np.ctypeslib.as_array(self._batch.n_seq_id, (count,))[:] = 1
        np.ctypeslib.as_array(self._batch.logits, (count,))[:] = wanted
        index = 0
        for span in spans:
            for _ in span.tokens:
                self._batch.seq_id[index][0] = span.slot
                index += 1
        return int(wanted.sum())
