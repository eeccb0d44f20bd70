"""A context: the KV cache of a model and the one place where llama.cpp computes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert import ggml
from ...convert.errors import EngineError, InputError, LoadFailed
from .adapter import NativeAdapter
from .library import drop_pages, flash_attention_type, library, native_log, truth_of_bytes
from .mapping import PAGE
from .model import NativeModel
from .zeros import unused_given_back

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
MAX_SEQUENCES = 256  # LLAMA_MAX_SEQ

_ADDRESS_OF = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """cells: tokens that the KV cache holds; sequences: slots; rows: most tokens of one :meth:`Context.decode`.

    spare: whether there is a sequence beyond the slots, for :meth:`Context.save_range`.
    """

    cells: int
    sequences: int
    rows: int
    threads: int
    threads_prefill: int
    kv_type: str = "f16"
    flash_attention: str = "auto"
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Tokens of one sequence, to be computed at ``start`` and after; ``output`` asks for the last one's logits, and
    ``each`` for all others', too."""

    slot: int
    start: int
    tokens: Sequence[int]
    output: bool
    each: bool = False


@dataclass(frozen=True, slots=True)
class PictureRows:
    """Rows of a picture, to be computed by sequence ``slot`` at ``start`` and after.

    values: shaped (rows, width of the model). grid: of a model with M-RoPE, four positions for each row, relative to
    ``start``, shaped (4, rows). together: in one go, each row seeing all others.
    """

    slot: int
    start: int
    values: NDArray[np.float32]
    grid: NDArray[np.int32] | None
    together: bool
    output: bool


class Aborted(Exception):
    """The decode was told to stop. The cells of its rows are empty again."""


class Context:
    """One unified KV cache. Used by one thread at a time, except :meth:`abort`, which any thread may call.

    Raises:
        InputError: an option that llama.cpp does not know. LoadFailed: no memory for the cache.
    """

    def __init__(self, model: NativeModel, options: ContextOptions) -> None:
        self._lib = library()
        self._model = model
        self._options = options
        self._spare = options.sequences
        self._abort_flag = ctypes.create_string_buffer(2)
        self._batch = _Batch(options.rows)
        self._logits_row = ctypes.c_float * model.vocab.size
        self._logits_address = ctypes.cast(self._lib.llama_get_logits, _ADDRESS_OF)
        self._handle: Any = None
        self.open()

    def open(self) -> None:
        """Make the cache, an empty one, unless it is there. Errors are those of the class."""
        if self._handle is None:
            self._handle = self._create(self._model, self._options)
            self._memory = self._lib.llama_get_memory(self._handle)
            self._give_back_outputs(self._model.vocab.size * self._options.sequences)
            self._seen: tuple[int | None, int] = (None, 0)
            self._views: list[NDArray[np.float32]] = []

    def _create(self, model: NativeModel, options: ContextOptions) -> Any:
        params = native_parameters(options)
        params.offload_kqv = model.gpu_layers != 0
        params.abort_callback = truth_of_bytes(self._lib.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort_flag)
        said: list[str] = []
        with native_log(said=said) as lines, unused_given_back(said):
            handle = self._lib.llama_init_from_model(model.handle, params)
        if not handle:
            reason = " ".join(lines[-3:]) or "no reason given"
            raise LoadFailed(
                f"llama.cpp cannot make a context of {options.cells} cells: {reason}",
                hint="a smaller --ctx or --kv-type q8_0 needs less memory",
            )
        return handle

    def _give_back_outputs(self, floats: int) -> None:
        """llama.cpp zeroes a row of logits for every sequence that there may be: pages that nobody has used yet. Given
        back, they read as zeros again."""
        address = self._logits_address(self._handle)
        if address and not self._model.gpu_layers:  # else it may be memory of the GPU's driver
            begin, end = -(-address // PAGE) * PAGE, (address + 4 * floats) // PAGE * PAGE
            if end > begin:
                drop_pages(begin, end - begin)

    def close(self) -> None:
        """Free the cache; the model stays loaded. :meth:`open` makes another one."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_free(handle)

    def decode(self, rows: Sequence[Rows]) -> dict[int, int]:
        """Compute ``rows``; returns the batch index of each slot that asked for logits (see :meth:`logits`), the first
        of several.

        Raises:
            Aborted: :meth:`abort` was called. EngineError: llama.cpp failed; the rows' cells are empty again.
        """
        outputs = self._batch.fill(rows)
        self._compute()
        return outputs

    def decode_next(self, rows: Iterable[tuple[int, int]]) -> None:
        """Compute other rows of the last :meth:`decode`'s slots: a token and its position each, all with output.

        There, too, each row had one token and output. Batch indices count the rows; errors are those of :meth:`decode`.
        """
        self._batch.refill(rows)
        self._compute()

    def _compute(self) -> None:
        status = self._lib.llama_decode(self._handle, self._batch.native)
        if status == 0:
            return
        for slot, start in self._batch.starts():
            self.remove(slot, start)
        if status == 2:
            raise Aborted
        raise EngineError(f"llama.cpp could not compute a step of {self._batch.native.n_tokens} tokens (code {status})")

    def decode_picture(self, picture: PictureRows) -> dict[int, int]:
        """Compute the rows of a picture; like :meth:`decode`."""
        count, most = len(picture.values), self._batch.capacity
        if picture.together and count > most:
            raise EngineError(f"a picture of {count} rows does not fit a step of {most}")
        self._lib.llama_set_causal_attn(self._handle, not picture.together)
        try:
            for begin in range(0, count, most):
                end = min(begin + most, count)
                self._compute_picture(self._batch.fill_picture(picture, begin, end), picture)
        finally:
            self._lib.llama_set_causal_attn(self._handle, True)
        return {picture.slot: (count - 1) % most} if picture.output else {}

    def _compute_picture(self, batch: Any, picture: PictureRows) -> None:
        status = self._lib.llama_decode(self._handle, batch)
        if status != 0:
            self.remove(picture.slot, picture.start)
        if status == 2:
            raise Aborted
        if status != 0:
            raise EngineError(f"llama.cpp could not compute a step of {batch.n_tokens} picture rows (code {status})")

    def all_logits(self, count: int) -> list[NDArray[np.float32]]:
        """:meth:`logits` of each row of the last decode, all ``count`` of which had output."""
        self._look(count)
        return self._views

    def all_best(self, count: int) -> list[int] | None:
        """The token with the largest logit in each of :meth:`all_logits`; None if one of the logits is no number."""
        self._look(count)
        if count == 1:  # which most steps are: two calls of numpy instead of six
            token = int(self._views[0].argmax())
            return [token] if math.isfinite(self._views[0].item(token)) else None
        tokens = self._logits.argmax(axis=1)
        return tokens.tolist() if np.isfinite(self._logits[np.arange(count), tokens]).all() else None

    def _look(self, count: int) -> None:
        address = self._logits_address(self._handle)
        if (address, count) != self._seen:
            if not address:
                raise EngineError("llama.cpp has no logits")
            rows: Any = (self._logits_row * count).from_address(address)
            self._logits = np.frombuffer(rows, np.float32).reshape(count, -1)
            self._views = list(self._logits)
            self._seen = (address, count)

    def logits(self, index: int) -> NDArray[np.float32]:
        """The logits at a batch index of the last decode: a view of shape (vocabulary,), valid until the next."""
        pointer = self._lib.llama_get_logits_ith(self._handle, index)
        if not pointer:
            raise EngineError(f"llama.cpp has no logits at batch index {index}")
        row: Any = self._logits_row.from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(row, np.float32)

    def use(self, adapters: Sequence[NativeAdapter]) -> None:
        """Add these adapters, each times its scale, to the weights in every later :meth:`decode`. Cells that were
        computed with others are not theirs."""
        pointer = ctypes.POINTER(ctypes.c_void_p)
        handles = (pointer * len(adapters))(*(ctypes.cast(adapter.handle, pointer) for adapter in adapters))
        scales = (ctypes.c_float * len(adapters))(*(adapter.scale for adapter in adapters))
        self._lib.llama_set_adapters_lora(self._handle, handles, len(adapters), scales)

    def use_threads(self, threads: int) -> None:
        """Compute every later step with so many."""
        self._options = replace(self._options, threads=threads, threads_prefill=threads)
        self._lib.llama_set_n_threads(self._handle, threads, threads)

    def abort(self) -> None:
        """Make the running decode stop at its next node, and every later one until :meth:`clear_abort`."""
        self._abort_flag[0] = b"\x01"

    def clear_abort(self) -> None:
        self._abort_flag[0] = b"\x00"

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let slot ``target`` share the cells of ``source`` at positions [start, end)."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, start, end)

    def remove(self, slot: int, start: int = 0, end: int = -1) -> None:
        """Let go of a slot's cells at positions [start, end); -1 is the end."""
        self._lib.llama_memory_seq_rm(self._memory, slot, start, end)

    def holds(self, slot: int, length: int) -> bool:
        """Whether everything that position ``length`` attends to is still there (sliding windows let old cells go)."""
        first = int(self._lib.llama_memory_seq_pos_min(self._memory, slot))
        window = self._model.sliding_window
        return first == 0 or (window > 0 and 0 < first <= length - window)

    def size(self, slot: int) -> int:
        """Bytes of a copy of a slot's cells."""
        return int(self._lib.llama_state_seq_get_size(self._handle, slot))

    def save(self, slot: int) -> NDArray[np.uint8] | None:
        """A copy of a slot's cells, for :meth:`restore`; None where llama.cpp makes none."""
        size = self.size(slot)
        state = np.empty(size, np.uint8)
        written = self._lib.llama_state_seq_get_data(self._handle, _pointer(state, ctypes.c_uint8), size, slot)
        return state if written == size else None

    def restore(self, slot: int, state: NDArray[np.uint8]) -> bool:
        """Fill an empty slot with a copy of this context; False if llama.cpp refuses it."""
        with native_log():
            pointer = _pointer(state, ctypes.c_uint8)
            return bool(self._lib.llama_state_seq_set_data(self._handle, pointer, state.nbytes, slot))

    def save_range(self, slot: int, start: int, end: int) -> NDArray[np.uint8] | None:
        """Like :meth:`save`, of the cells at positions [start, end) only; needs the spare sequence."""
        self.copy(slot, self._spare, start, end)
        try:
            return self.save(self._spare) if self._spans(start, end) else None
        finally:
            self.remove(self._spare)

    def restore_range(self, slot: int, start: int, end: int, state: NDArray[np.uint8]) -> bool:
        """Add the cells of :meth:`save_range` to a slot; False if they are not those of [start, end)."""
        try:
            if not self.restore(self._spare, state) or not self._spans(start, end):
                return False
            self.copy(self._spare, slot, start, end)
            return True
        finally:
            self.remove(self._spare)

    def _spans(self, start: int, end: int) -> bool:
        """Whether the spare sequence begins and ends there."""
        first = self._lib.llama_memory_seq_pos_min(self._memory, self._spare)
        last = self._lib.llama_memory_seq_pos_max(self._memory, self._spare)
        return (int(first), int(last)) == (start, end - 1)

    @property
    def handle(self) -> Any:
        return self._handle


class _Batch:
    """A llama_batch whose arrays are numpy's: filling it is slice assignment, never a store per token."""

    def __init__(self, capacity: int) -> None:
        lib = library()
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._counts = np.ones(capacity, np.int32)
        self._slots = np.arange(MAX_SEQUENCES, dtype=np.int32)
        self._slot_pointers = np.zeros(capacity, np.uintp)
        self._begins: dict[int, int] = {}
        # A store through a memoryview costs a tenth of one through numpy.
        self._tokens, self._positions = self._token.data, self._position.data
        self.native = lib.llama_batch()
        self.native.token = _pointer(self._token, ctypes.c_int32)
        self.native.pos = _pointer(self._position, ctypes.c_int32)
        self.native.logits = _pointer(self._output, ctypes.c_int8)
        self.native.n_seq_id = _pointer(self._counts, ctypes.c_int32)
        self.native.seq_id = self._slot_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))

    def fill(self, rows: Sequence[Rows]) -> dict[int, int]:
        outputs: dict[int, int] = {}
        begin = 0
        self._begins = {}
        for row in rows:
            self._begins[row.slot] = begin
            end = begin + len(row.tokens)
            self._token[begin:end] = row.tokens
            self._position[begin:end] = np.arange(row.start, row.start + len(row.tokens))
            self._slot_pointers[begin:end] = self._slots.ctypes.data + row.slot * self._slots.itemsize
            self._output[begin:end] = row.each
            if row.output:
                self._output[end - 1] = 1
                outputs[row.slot] = begin if row.each else end - 1
            begin = end
        self.native.n_tokens = begin
        return outputs

    def fill_picture(self, picture: PictureRows, begin: int, end: int) -> Any:
        """A batch of the rows of a picture from ``begin`` to ``end``; valid until the next one is filled."""
        count = end - begin
        grid = picture.grid if picture.grid is not None else np.arange(len(picture.values), dtype=np.int32)[None]
        self._picture = (picture.values[begin:end].copy(), (grid[:, begin:end] + picture.start).astype(np.int32))
        values, positions = self._picture
        self._slot_pointers[:count] = self._slots.ctypes.data + picture.slot * self._slots.itemsize
        self._output[:count] = 0
        self._output[count - 1] = picture.output and end == len(picture.values)
        batch = library().llama_batch()
        batch.n_tokens = count
        batch.embd = _pointer(values, ctypes.c_float)
        batch.pos = _pointer(positions, ctypes.c_int32)
        batch.logits, batch.n_seq_id, batch.seq_id = self.native.logits, self.native.n_seq_id, self.native.seq_id
        return batch

    def refill(self, rows: Iterable[tuple[int, int]]) -> None:
        """The same slots, with another token and position each."""
        for index, (token, position) in enumerate(rows):
            self._tokens[index] = token
            self._positions[index] = position

    def starts(self) -> Iterator[tuple[int, int]]:
        """Slot and first position of each row."""
        return ((slot, self._positions[begin]) for slot, begin in self._begins.items())


def native_parameters(options: ContextOptions) -> Any:
    """``llama_context_params`` for ``options``: all but what belongs to one context only."""
    params = library().llama_context_default_params()
    params.n_ctx = options.cells
    params.n_seq_max = options.sequences + options.spare
    params.n_batch = params.n_ubatch = options.rows
    params.n_outputs_max = max(options.rows, options.sequences)
    params.n_threads = options.threads
    params.n_threads_batch = options.threads_prefill
    params.type_k = params.type_v = _kv_type(options)
    params.flash_attn_type = flash_attention_type(options.flash_attention)
    params.swa_full = True
    params.kv_unified = True
    params.no_perf = True
    return params


def _pointer(array: NDArray[Any], element: type[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(element))


def _kv_type(options: ContextOptions) -> int:
    if options.kv_type.lower() not in KV_TYPES:
        raise InputError(f"no KV cache of type {options.kv_type!r}", hint=f"choose one of {', '.join(KV_TYPES)}")
    element = ggml.named(options.kv_type)
    if element.block > 1 and options.flash_attention == "off":
        raise InputError(
            f"a KV cache of type {options.kv_type} needs flash attention, which is switched off",
            hint="drop --flash-attention off, or choose --kv-type f16",
        )
    return element.id
