"""Rows of f32 to the blocks of a type and back, by the kernels of the installed ggml: its own quantizer's bytes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert.errors import EngineError
from ..convert.ggml import GGMLType
from . import worker
from .kernels import library_path

F32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CHUNK_WEIGHTS = 1 << 16
"""Weights of one call: they stay in a core's cache between reading and writing."""


def encode(rows: F32, element: GGMLType, importance: F32 | None, pool: Executor) -> Bytes:
    """``rows``, (rows, width), as ``element``: (rows, row bytes). importance: mean square of each input, (width,).

    Raises:
        EngineError: the installed ggml has no kernels for it.
    """
    width = rows.shape[1]
    found = np.empty((len(rows), element.row_bytes(width)), np.uint8)
    quantize = _library().ggml_quantize_chunk
    weights = np.ascontiguousarray(importance, np.float32) if importance is not None else None
    _library().ggml_quantize_init(element.id)

    def work(block: slice) -> None:
        source = np.ascontiguousarray(rows[block], np.float32)
        address = weights.ctypes.data if weights is not None else None
        quantize(element.id, source.ctypes.data, found[block].ctypes.data, 0, len(source), width, address)

    list(pool.map(work, _chunks(len(rows), width)))
    return found


def decode(data: Bytes, element: GGMLType, width: int) -> F32:
    """What the blocks of ``data``, (rows, row bytes), stand for: (rows, width)."""
    found = np.empty((len(data), width), np.float32)
    source = np.ascontiguousarray(data)
    _decoder(element)(source.ctypes.data, found.ctypes.data, found.size)
    return found


def as_f32(values: NDArray[Any]) -> F32:
    """Plain values of a file as f32: f32, f16, or the bits of bf16 as u16."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _chunks(count: int, width: int) -> Iterator[slice]:
    height = max(1, CHUNK_WEIGHTS // width)
    return (slice(start, min(start + height, count)) for start in range(0, count, height))


@functools.cache
def _decoder(element: GGMLType) -> Any:
    """``dequantize_row_q4_K`` for Q4_K: of the name only K keeps its capital."""
    name = f"dequantize_row_{element.name.lower().replace('_k', '_K')}"
    try:
        function = getattr(_library(), name)
    except AttributeError as error:
        raise EngineError(f"the installed ggml has no {name}") from error
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    return function


@functools.cache
def _library() -> ctypes.CDLL:
    """The base library of ggml; loading it starts no engine."""
    base = worker.library(str(library_path()))
    base.ggml_quantize_init.argtypes, base.ggml_quantize_init.restype = [ctypes.c_int], None
    return base
