"""What we compute of a graph ourselves: attention (attention.cpp), and products with quantized weights (products.cpp).

setuptools builds them beside this module where there is a C++ compiler with OpenMP. Together they are a backend of ggml
(backend.cpp): llama.cpp lets it compute what it can, and computes all else where it always does.

Its threads are those of libgomp that llama.cpp's kernels have too, so it is not used beside a build without them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import random
import struct
from pathlib import Path
from typing import Any, NamedTuple

from ...convert.errors import InputError
from .tensor import Tensor

ATTENTION, PRODUCTS = "INGLE_ATTENTION", "INGLE_PRODUCTS"
"""In the environment: ``off`` leaves them to llama.cpp; a level of this CPU (``avx2``, for instance) picks that."""

NODES = b"FLASH_ATTN_EXT", b"MUL_MAT"
F32, F16, Q4_0, Q4_K = 0, 1, 2, 12  # ggml_type
REPACKED = {Q4_0: 18 * 8, Q4_K: 144}
"""Types of weights that we read as ggml repacks them, with the bytes of 256."""

MAPS = Path("/proc/self/maps")


class Levels(NamedTuple):
    """Of CPU, that our attention and our products are computed for; empty where they are llama.cpp's."""

    attention: str = ""
    products: str = ""


class Operations(NamedTuple):
    """The numbers of our nodes in the installed ggml."""

    attention: int
    product: int


class _Ggml(ctypes.Structure):
    """``Ggml`` of backend.h."""

    _fields_ = (
        ("cpu_buffer_type", ctypes.c_void_p),
        ("is_host", ctypes.c_void_p),
        ("type_of", ctypes.c_void_p),
        ("node_count", ctypes.c_void_p),
        ("node", ctypes.c_void_p),
        ("repacked", ctypes.c_void_p),
        ("attention", ctypes.c_int32),
        ("product", ctypes.c_int32),
    )


class _Memory(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """None where it was not compiled, or cannot be loaded."""
    found = importlib.util.find_spec(f"{__package__}._backend")
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
    except OSError:
        return None
    library.backend_begin.argtypes, library.backend_begin.restype = [ctypes.c_void_p], None
    library.attention_begin.argtypes, library.attention_begin.restype = [ctypes.c_char_p], ctypes.c_char_p
    library.products_begin.argtypes, library.products_begin.restype = [ctypes.c_char_p], ctypes.c_char_p
    library.products_agree.argtypes = [ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32]
    library.products_agree.restype = ctypes.c_bool
    library.backend_compute_node.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]
    library.backend_compute_node.restype = ctypes.c_int32
    return library


def begin(ggml: ctypes.CDLL) -> Levels:
    """Have llama.cpp of this process take what is ours. ``ggml``: where its functions are found.

    Nothing is where it is switched off, not compiled, or knows another ggml or CPU than is here: llama.cpp's is used.
    """
    if compiled() is None or not _shares_threads():
        return Levels()
    attention, products = os.environ.get(ATTENTION, ""), os.environ.get(PRODUCTS, "")
    operations = find_operations(ggml)
    levels = prepare(ggml, operations, attention, products) if operations is not None else Levels()
    ggml.ggml_backend_load.argtypes, ggml.ggml_backend_load.restype = [ctypes.c_char_p], ctypes.c_void_p
    name = os.fsencode(compiled()._name)  # type: ignore[union-attr]
    return levels if any(levels) and ggml.ggml_backend_load(name) else Levels()


def check_wanted(found: Levels) -> None:
    """Raises InputError where the environment asks for a level by name and another one, or none, was found."""
    for variable, level in zip((ATTENTION, PRODUCTS), found, strict=True):
        wanted = os.environ.get(variable, "")
        if wanted not in ("", "off", level):
            here = f"the best here is {level}" if level else "there is none here"
            raise InputError(f"{variable}={wanted}: no level of this CPU and this build; {here}; unset it, or say off")


def prepare(ggml: Any, operations: Operations, attention: str = "", products: str = "") -> Levels:
    """Tell it what the installed ggml has; the levels that this CPU has: the best ("") or the named one, or "off"."""
    library = compiled()
    if library is None:
        return Levels()
    found = library.attention_begin(attention.encode()), library.products_begin(products.encode())
    levels = Levels(*(level.decode() for level in found))
    names = (
        "ggml_backend_cpu_buffer_type",
        "ggml_backend_buft_is_host",
        "ggml_backend_buffer_get_type",
        "ggml_graph_n_nodes",
        "ggml_graph_node",
    )
    functions = [ctypes.cast(getattr(ggml, name), ctypes.c_void_p).value for name in names]
    repacked = _repacked(ggml, library) if levels.products else None
    library.backend_begin(ctypes.byref(_Ggml(*functions, repacked, *operations)))
    return levels


def _shares_threads() -> bool:
    return MAPS.exists() and "libgomp" in MAPS.read_text()


def find_operations(ggml: Any) -> Operations | None:
    """None where nodes that ggml makes do not read as ours would be read."""
    tensor, data = ggml.ggml_new_tensor_3d, ggml.ggml_get_data
    attend, multiply = ggml.ggml_flash_attn_ext, ggml.ggml_mul_mat
    tensor.argtypes = [ctypes.c_void_p, ctypes.c_int, *(ctypes.c_int64,) * 3]
    attend.argtypes, multiply.argtypes = [*(ctypes.c_void_p,) * 5, *(ctypes.c_float,) * 3], [ctypes.c_void_p] * 3
    data.argtypes, ggml.ggml_free.argtypes, ggml.ggml_init.argtypes = [ctypes.c_void_p], [ctypes.c_void_p], [_Memory]
    tensor.restype = attend.restype = multiply.restype = data.restype = ggml.ggml_init.restype = ctypes.c_void_p
    ggml.ggml_op_name.argtypes, ggml.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    context = ggml.ggml_init(_Memory(1 << 16, None, False))
    try:
        queries = tensor(context, F32, 16, 3, 4)
        sources = [queries, *(tensor(context, F16, *size) for size in ((16, 5, 2), (16, 5, 2), (5, 3, 1)))]
        factors = [tensor(context, Q4_0, 32, 5, 1), tensor(context, F32, 32, 7, 1)]
        addresses = attend(context, *sources, 0.25, 0.5, 0.0), multiply(context, *factors)
        node, product = (Tensor.from_address(address) for address in addresses)
        first, mask, weights = (Tensor.from_address(address) for address in (queries, sources[3], factors[0]))
        known = (
            [*node.src[:5]] == [*sources, None]
            and (node.type, first.type, mask.type) == (F32, F32, F16)
            and [*node.ne] == [16, 4, 3, 1]
            and [*first.ne] == [16, 3, 4, 1]
            and [*mask.nb] == [2, 10, 30, 30]
            and struct.pack("3i", *node.op_params[:3]) == struct.pack("3f", 0.25, 0.5, 0.0)
            and (node.data, mask.data) == (data(addresses[0]), data(sources[3]))
            and [*product.src[:3]] == [*factors, None]
            and (product.type, [*product.ne], [*product.nb]) == (F32, [5, 7, 1, 1], [4, 20, 140, 140])
            and (weights.type, [*weights.ne], weights.nb[1]) == (Q4_0, [32, 5, 1, 1], 18)
            and (weights.buffer, weights.view_src) == (None, None)
            and tuple(ggml.ggml_op_name(one.op) for one in (node, product)) == NODES
        )
        return Operations(node.op, product.op) if known else None
    finally:
        ggml.ggml_free(context)


def _repacked(ggml: Any, ours: ctypes.CDLL) -> int | None:
    """The buffers in which ggml repacks weights for the CPU; None unless we read there what it was given."""
    found = _buffer_type(ggml, b"CPU_REPACK")
    return found if found and all(_reads_repacked(ggml, ours, found, type_) for type_ in REPACKED) else None


def _buffer_type(ggml: Any, name: bytes) -> int | None:
    by_name, address = ggml.ggml_backend_reg_by_name, ggml.ggml_backend_reg_get_proc_address
    by_name.argtypes, by_name.restype = [ctypes.c_char_p], ctypes.c_void_p
    address.argtypes, address.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_void_p
    device = ggml.ggml_backend_reg_dev_get
    device.argtypes, device.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_void_p
    ggml.ggml_backend_buft_name.argtypes, ggml.ggml_backend_buft_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    registry = by_name(b"CPU")
    function = address(registry, b"ggml_backend_dev_get_extra_bufts") if registry else None
    if not function:
        return None
    kind = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
    for type_ in kind(function)(device(registry, 0)):
        if not type_ or ggml.ggml_backend_buft_name(type_) == name:
            return int(type_) if type_ else None
    return None


def _reads_repacked(ggml: Any, ours: ctypes.CDLL, buffers: int, type_: int) -> bool:
    """Whether the same weights come of sixteen outputs as they are and as they lie in such a buffer."""
    allocate, put = ggml.ggml_backend_alloc_ctx_tensors_from_buft, ggml.ggml_backend_tensor_set
    allocate.argtypes, allocate.restype = [ctypes.c_void_p] * 2, ctypes.c_void_p
    put.argtypes, put.restype = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t], None
    ggml.ggml_backend_buffer_free.argtypes, ggml.ggml_backend_buffer_free.restype = [ctypes.c_void_p], None
    context = ggml.ggml_init(_Memory(1 << 14, None, True))
    try:
        address = ggml.ggml_new_tensor_3d(context, type_, 512, 16, 1)
        buffer = allocate(context, buffers)
        if not buffer:
            return False
        try:
            tensor = Tensor.from_address(address)
            plain = random.Random(0).randbytes(16 * 2 * REPACKED[type_])  # noqa: S311
            if not tensor.extra:  # how it would be repacked
                return False
            put(address, plain, 0, len(plain))
            return bool(ours.products_agree(type_, plain, tensor.data, 512))
        finally:
            ggml.ggml_backend_buffer_free(buffer)
    finally:
        ggml.ggml_free(context)
