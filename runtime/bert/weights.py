"""The weights of a BERT as the compiled layers want them, from its GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.encode import encode
from ...convert.gguf import GGUF
from ..llama.metadata import integer
from ..llama.rows import rows
from . import native

Array = NDArray[np.float32]
ARCHITECTURE = "bert"
EMBEDDING, POSITIONS, KINDS = "token_embd.weight", "position_embd.weight", "token_types.weight"
ENTRY = "token_embd_norm"
QUERY, KEY, VALUE = "attn_q", "attn_k", "attn_v"
MATRICES = (QUERY, KEY, VALUE, "attn_output", "ffn_up", "ffn_down")
NORMS = ("attn_output_norm", "layer_output_norm")
EXACT = frozenset({"F32", "F16"})
"""Types that hold more than bf16 does; files with them are read by llama.cpp, as exactly as they are stored."""


def fits(file: GGUF) -> bool:
    """Whether the layers are those that were compiled, with weights that bf16 holds as well as the file does."""
    metadata = file.metadata
    if metadata.get("general.architecture") != ARCHITECTURE or POSITIONS not in file.tensors:
        return False
    count = integer(metadata, f"{ARCHITECTURE}.block_count", 0)
    needed = {f"blk.{layer}.{name}.weight" for layer in range(count) for name in (*MATRICES, *NORMS)}
    allowed = needed | {name.replace(".weight", ".bias") for name in needed}
    there = {name for name in file.tensors if name.startswith("blk.")}
    if not count or not needed <= there <= allowed or f"{ENTRY}.weight" not in file.tensors:
        return False
    matrices = [file.tensors[f"blk.{layer}.{name}.weight"] for layer in range(count) for name in MATRICES]
    width, heads = file.tensors[EMBEDDING].shape[-1], integer(metadata, f"{ARCHITECTURE}.attention.head_count", 0)
    return (
        heads > 0
        and width % (heads * native.PART) == 0
        and width // heads <= native.LONGEST_HEAD
        and not any(EXACT & {matrix.type.name} or matrix.shape[0] % native.PART for matrix in matrices)
    )


class Weights:
    """Packed copies of a file's weights; ``bert`` points to them, so they live as long as it."""

    def __init__(self, file: GGUF) -> None:
        self._file = file
        self._kept: list[NDArray[Any]] = []
        count = integer(file.metadata, f"{ARCHITECTURE}.block_count", 0)
        self._layers = (native.Layer * count)(*(self._layer(f"blk.{number}.") for number in range(count)))
        self.width = int(file.tensors[EMBEDDING].shape[-1])
        self.bert = native.Bert(
            layers=ctypes.addressof(self._layers),
            entry=self._norm(ENTRY),
            count=count,
            width=self.width,
            heads=integer(file.metadata, f"{ARCHITECTURE}.attention.head_count", 0),
            inner=int(file.tensors["blk.0.ffn_up.weight"].shape[0]),
            epsilon=float(str(file.metadata[f"{ARCHITECTURE}.attention.layer_norm_epsilon"])),
        )
        kind = rows(file, KINDS)[0] if KINDS in file.tensors else np.float32(0)
        self._positions: Array = rows(file, POSITIONS) + kind

    def embedded(self, texts: Sequence[Sequence[int]], inputs: Array | None) -> Array:
        """What the first norm gets, (tokens, width). inputs: what is read in place of the tokens' embeddings."""
        ids = np.concatenate([np.asarray(text, np.int64) for text in texts])
        places = np.concatenate([np.arange(len(text)) for text in texts])
        found = rows(self._file, EMBEDDING, ids) if inputs is None else inputs
        return np.ascontiguousarray(found + self._positions[places], np.float32)

    def _layer(self, prefix: str) -> native.Layer:
        return native.Layer(
            projection=self._linear(prefix + QUERY, prefix + KEY, prefix + VALUE),
            output=self._linear(prefix + "attn_output"),
            up=self._linear(prefix + "ffn_up"),
            down=self._linear(prefix + "ffn_down"),
            attended=self._norm(prefix + "attn_output_norm"),
            fed=self._norm(prefix + "layer_output_norm"),
        )

    def _linear(self, *names: str) -> native.Linear:
        """Some matrices below one another, in panels; see layers.cpp."""
        weight = np.concatenate([rows(self._file, f"{name}.weight") for name in names])
        bias = np.concatenate([self._vector(f"{name}.bias", f"{name}.weight") for name in names])
        outputs, inputs = weight.shape
        more = -outputs % native.PANEL
        halves = encode(np.pad(weight, ((0, more), (0, 0))), "F32", "BF16").view(np.uint16)
        panels = halves.reshape(-1, native.PANEL, inputs // 2, 2).transpose(0, 2, 1, 3)
        return native.Linear(
            weight=self._keep(np.ascontiguousarray(panels)),
            bias=self._keep(np.pad(bias, (0, more))),
            inputs=inputs,
            outputs=outputs,
        )

    def _vector(self, name: str, beside: str) -> Array:
        """A bias, or zeros for the weight that has none."""
        if name not in self._file.tensors:
            return np.zeros(self._file.tensors[beside].shape[0], np.float32)
        return rows(self._file, name)

    def _norm(self, name: str) -> native.Norm:
        shift = self._vector(f"{name}.bias", f"{name}.weight")
        return native.Norm(scale=self._keep(rows(self._file, f"{name}.weight")), shift=self._keep(shift))

    def _keep(self, array: NDArray[Any]) -> int:
        self._kept.append(np.ascontiguousarray(array))
        return self._kept[-1].ctypes.data
