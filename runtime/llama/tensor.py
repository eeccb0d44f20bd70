"""``struct ggml_tensor`` as ggml.h lays it out. Whoever reads one checks first that the installed ggml agrees."""

from __future__ import annotations

import ctypes


class Tensor(ctypes.Structure):
    """A node of a graph, or what it is made from. Sizes in elements and bytes, the fastest dimension first."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
    )
