"""The compiled layers (layers.cpp), which setuptools builds beside this module where there is a C++ compiler."""

from __future__ import annotations

import ctypes
import functools
import importlib.util

QUICK = ("avx512_bf16",)
"""The ways that were measured to be quicker than llama.cpp."""

PANEL, PART = 64, 16  # of layers.cpp
LONGEST_HEAD = 256


class Linear(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
    )


class Norm(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p))


class Layer(ctypes.Structure):
    _fields_ = (
        ("projection", Linear),
        ("output", Linear),
        ("up", Linear),
        ("down", Linear),
        ("attended", Norm),
        ("fed", Norm),
    )


class Bert(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_void_p),
        ("entry", Norm),
        ("count", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("inner", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
    )


class Work(ctypes.Structure):
    _fields_ = (
        ("lengths", ctypes.c_void_p),
        ("texts", ctypes.c_int32),
        ("tokens", ctypes.c_int32),
        ("longest", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("states", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("arrived", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """None where it was not compiled."""
    found = importlib.util.find_spec(f"{__package__}._layers")
    if found is None or found.origin is None:
        return None
    layers = ctypes.CDLL(found.origin)
    layers.way_name.argtypes, layers.way_name.restype = [ctypes.c_int32], ctypes.c_char_p
    layers.way_is_here.argtypes = [ctypes.c_int32]
    layers.scratch_bytes.argtypes, layers.scratch_bytes.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
    layers.read_texts.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
    return layers


@functools.cache
def ways() -> dict[str, int]:
    """The ways to compute that this CPU has, by name, the fastest first; none without the library."""
    layers = library()
    found: dict[str, int] = {}
    for number in range(8):
        name = layers.way_name(number) if layers else None
        if layers is None or name is None:
            break
        if layers.way_is_here(number):
            found[name.decode()] = number
    return found


def quick_way() -> str | None:
    """The fastest that is quicker than llama.cpp here; None where there is none."""
    return next((name for name in ways() if name in QUICK), None)
