"""Our attention (attention.cpp), which setuptools builds beside this module where there is a C++ compiler with OpenMP,
as a backend of ggml: llama.cpp lets it compute what it can, and computes all else where it always does.

Its threads are those of libgomp that llama.cpp's kernels have too, so it is not used beside a build without them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...convert.gguf import Value
from .metadata import attention_heads, integer
from .tensor import Tensor

SWITCH = "INGLE_ATTENTION"
"""In the environment: ``off`` leaves attention to llama.cpp, ``avx2`` does without AVX512."""

NODE = b"FLASH_ATTN_EXT"
F32, F16 = 0, 1  # ggml_type
MAPS = Path("/proc/self/maps")
PART, WIDEST = 16, 512  # of attention.cpp: what the width of a head is a multiple of, and at most

OTHERS = frozenset({"baichuan", "bloom", "deepseek2", "gemma2", "gpt-oss", "grok", "jais", "mpt", "refact"})
"""Architectures that cap their scores, add to them by distance, have sinks, or heads of two widths."""


class _Ggml(ctypes.Structure):
    """``Ggml`` of attention.cpp."""

    _fields_ = (
        ("cpu_buffer_type", ctypes.c_void_p),
        ("is_host", ctypes.c_void_p),
        ("node_count", ctypes.c_void_p),
        ("node", ctypes.c_void_p),
        ("attention", ctypes.c_int32),
    )


class _Memory(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """None where it was not compiled, or cannot be loaded."""
    found = importlib.util.find_spec(f"{__package__}._attention")
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
    except OSError:
        return None
    library.attention_begin.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.attention_begin.restype = ctypes.c_char_p
    library.attention_compute.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]
    library.attention_compute.restype = ctypes.c_int32
    return library


def begin(ggml: ctypes.CDLL) -> str:
    """Have llama.cpp of this process take our attention; returns the level of CPU that it is computed for. ``ggml``:
    where its functions are found.

    Empty where it is switched off, not compiled, or knows another ggml or CPU than is here: llama.cpp's is used then.
    """
    switch = os.environ.get(SWITCH, "")
    if switch == "off" or compiled() is None or not _shares_threads():
        return ""
    operation = _operation(ggml)
    level = prepare(ggml, operation, switch) if operation is not None else ""
    ggml.ggml_backend_load.argtypes, ggml.ggml_backend_load.restype = [ctypes.c_char_p], ctypes.c_void_p
    return level if level and ggml.ggml_backend_load(os.fsencode(compiled()._name)) else ""  # type: ignore[union-attr]


def prepare(ggml: ctypes.CDLL, operation: int, most: str = "") -> str:
    """Tell it what the installed ggml has; the level that this CPU has, ``most`` at most. Empty where it has none."""
    names = "ggml_backend_cpu_buffer_type", "ggml_backend_buft_is_host", "ggml_graph_n_nodes", "ggml_graph_node"
    functions = [ctypes.cast(getattr(ggml, name), ctypes.c_void_p).value for name in names]
    library = compiled()
    found = library.attention_begin(ctypes.byref(_Ggml(*functions, operation)), most.encode()) if library else b""
    return str(found.decode())


def suits(metadata: Mapping[str, Value]) -> bool:
    """Whether it can compute the attention of a model."""
    architecture = metadata.get("general.architecture")
    heads = attention_heads(metadata)
    usual = integer(metadata, f"{architecture}.embedding_length", 0) // max(heads, 1)  # Mamba has none
    keys, values = (integer(metadata, f"{architecture}.attention.{kind}_length", usual) for kind in ("key", "value"))
    return architecture not in OTHERS and keys == values and keys % PART == 0 and 0 < keys <= WIDEST


def _shares_threads() -> bool:
    return MAPS.exists() and "libgomp" in MAPS.read_text()


def _operation(ggml: Any) -> int | None:
    """The number of the node; None where one that ggml makes does not read as attention.cpp would read it."""
    make = ggml.ggml_new_tensor_3d
    make.argtypes = [ctypes.c_void_p, ctypes.c_int, *(ctypes.c_int64,) * 3]
    attend, data = ggml.ggml_flash_attn_ext, ggml.ggml_get_data
    attend.argtypes = [*(ctypes.c_void_p,) * 5, *(ctypes.c_float,) * 3]
    data.argtypes, ggml.ggml_free.argtypes, ggml.ggml_init.argtypes = [ctypes.c_void_p], [ctypes.c_void_p], [_Memory]
    make.restype = attend.restype = data.restype = ggml.ggml_init.restype = ctypes.c_void_p
    ggml.ggml_op_name.argtypes, ggml.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    context = ggml.ggml_init(_Memory(1 << 16, None, False))
    try:
        queries = make(context, F32, 16, 3, 4)
        sources = [queries, make(context, F16, 16, 5, 2), make(context, F16, 16, 5, 2), make(context, F16, 5, 3, 1)]
        address = attend(context, *sources, 0.25, 0.5, 0.0)
        node, first, mask = (Tensor.from_address(place) for place in (address, queries, sources[3]))
        known = (
            [*node.src[:5]] == [*sources, None]
            and (node.type, first.type, mask.type) == (F32, F32, F16)
            and [*node.ne] == [16, 4, 3, 1]
            and [*first.ne] == [16, 3, 4, 1]
            and [*mask.nb] == [2, 10, 30, 30]
            and struct.pack("3i", *node.op_params[:3]) == struct.pack("3f", 0.25, 0.5, 0.0)
            and (node.data, mask.data) == (data(address), data(sources[3]))
            and ggml.ggml_op_name(node.op) == NODE
        )
        return int(node.op) if known else None
    finally:
        ggml.ggml_free(context)
