"""Rows of a stored matrix as numbers, whatever type they are stored in: ggml's own decoding of its blocks."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.encode import to_f32
from ...convert.errors import UnsupportedModel
from ...convert.gguf import GGUF
from .library import library

PLAIN = ("F32", "F16", "BF16")
_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _Traits(ctypes.Structure):
    """ggml.h: ggml_type_traits."""

    _fields_ = [
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    ]


def rows(file: GGUF, name: str, ids: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """The rows ``ids`` of a matrix, or all of them, as f32: (rows, width).

    Raises:
        BadGGUF: there is no such tensor. UnsupportedModel: ggml cannot decode its type.
    """
    stored, info = file.tensor(name), file.tensors[name]
    chosen = stored if ids is None else stored[ids]
    if info.type.name in PLAIN:
        return to_f32(chosen, info.type.name)
    return _decoded(np.ascontiguousarray(chosen), info.type.id, info.shape[-1], info.type.name)


def _decoded(blocks: NDArray[Any], type_id: int, width: int, type_name: str) -> NDArray[np.float32]:
    find = library()._lib.ggml_get_type_traits
    find.restype, find.argtypes = ctypes.POINTER(_Traits), [ctypes.c_int]
    traits = find(type_id).contents
    if traits.type_name.decode().lower() != type_name.lower() or not traits.to_float:
        raise UnsupportedModel(
            f"the head needs a matrix that is stored as {type_name}, which the installed llama.cpp does not decode",
            hint=f"keep the model as one of {', '.join(PLAIN)} or Q8_0",
        )
    numbers = np.empty((len(blocks), width), np.float32)
    _TO_FLOAT(traits.to_float)(blocks.ctypes.data, numbers.ctypes.data, numbers.size)
    return numbers
