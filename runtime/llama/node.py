"""Nodes of a running graph, as the eval callback sees them: the matrix products, and what is multiplied.

Each node is checked to have its name where the layout of tensor.py says.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError
from ...convert.ggml import TYPES
from .library import library
from .tensor import Tensor

FEWEST_ROWS = 16
"""Products of fewer rows are not looked at, as in llama-imatrix: they are not what a weight does for each token."""

F32, I32 = TYPES["F32"].id, TYPES["I32"].id


@dataclass(frozen=True, slots=True)
class Product:
    """Weight times inputs.

    matrices: of the weight, below one another (experts, or one per head). inputs: (n3, n2, rows, width), a view of
    f32; source: the address of the node that gave them. chosen: for each token its experts, (tokens, used), or None
    where every row meets the weight; then inputs are (1, tokens, used or 1, width).
    """

    weight: str
    matrices: tuple[int, int]
    inputs: NDArray[np.float32]
    source: int
    chosen: NDArray[np.int32] | None


HEADS = frozenset({"output.weight", "token_embd.weight"})


def is_product(address: int, *, head: bool = False) -> bool:
    """Whether the node multiplies a weight of a block with many rows of f32; with ``head``, or that of the logits."""
    node = Tensor.from_address(address)
    kind = _op_name(node.op)
    if kind == "MUL_MAT_ID":
        return True
    if kind != "MUL_MAT":
        return False
    inputs = Tensor.from_address(node.src[1])
    name = _weight_name(node)
    wanted = name.startswith("blk.") or (head and name in HEADS)
    return bool(inputs.ne[1] >= FEWEST_ROWS and inputs.type == F32 and wanted)


def product(address: int) -> Product:
    """What a node for which :func:`is_product` is true multiplies; views of memory that is valid until it is done.

    Raises:
        EngineError: this build of llama.cpp lays nodes out in another way, or its inputs are no f32 in memory.
    """
    node = Tensor.from_address(address)
    if node.name != _ggml().ggml_get_name(address):
        raise EngineError(
            "the installed llama.cpp keeps the nodes of its graphs in an unknown layout",
            hint="install the llama-cpp-python that ingle was tested with",
        )
    weight, inputs = (Tensor.from_address(node.src[index]) for index in (0, 1))
    if inputs.type != F32:
        raise EngineError(f"the inputs of {_weight_name(node)} are not f32")
    chosen = None
    if _op_name(node.op) == "MUL_MAT_ID":
        ids = Tensor.from_address(node.src[2])
        chosen = _view(ids, np.dtype(np.int32))[0, 0]
    return Product(
        weight=_weight_name(node),
        matrices=(int(weight.ne[3]), int(weight.ne[2])),
        inputs=_view(inputs, np.dtype(np.float32)),
        source=int(node.src[1]),
        chosen=chosen,
    )


def _view(tensor: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values where they are, slowest dimension first."""
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    extent = dtype.itemsize + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    memory = (ctypes.c_uint8 * extent).from_address(tensor.data)
    return np.ndarray(shape, dtype, memory, strides=strides)


def _weight_name(node: Tensor) -> str:
    """Without what the scheduler puts around the name of a copy: ``CPU#blk.0.attn_k.weight#0``."""
    name = bytes(Tensor.from_address(node.src[0]).name).decode(errors="replace")
    return name.split("#")[1] if "#" in name else name


@functools.cache
def _op_name(op: int) -> str:
    return str(_ggml().ggml_op_name(op).decode())


@functools.cache
def _ggml() -> ctypes.CDLL:
    """The base library of ggml, which llama.cpp has loaded already."""
    folder = Path(library().__file__).parent / "lib"
    found = next(iter(sorted(folder.glob("*ggml-base.*"))), None)
    if found is None:
        raise EngineError(f"the installed llama.cpp has no ggml-base library in {folder}")
    base = ctypes.CDLL(str(found))
    base.ggml_op_name.argtypes, base.ggml_op_name.restype = [ctypes.c_int], ctypes.c_char_p
    base.ggml_get_name.argtypes, base.ggml_get_name.restype = [ctypes.c_void_p], ctypes.c_char_p
    return base
