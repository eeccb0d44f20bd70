"""The numerical proof of a converted adapter: what llama.cpp adds, against what PEFT's merge adds.

Both change each weight by adding to it, and what a family does to a weight only moves its values, so equal additions
mean equal merged weights. One side is the file as written: ``lora_b @ lora_a``, as llama.cpp multiplies. The other is
the whole matrix ``scale * B @ A`` of the adapter folder, taken through the family's transforms like the weight itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import gguf
from .encode import to_f32
from .errors import BadCheckpoint, VerificationFailed
from .gguf import GGUF
from .lora import EMBEDDING, Addition
from .progress import Progress, silent

# Relative to the largest value: f32 sums in another order, or factors rounded to 11 or 8 bits.
TOLERANCE = {"F32": 1e-5, "F16": 4e-3, "BF16": 3e-2}


@dataclass(frozen=True, slots=True)
class Merge:
    """weights: how many merged weights are equal; largest_error: the largest difference, relative to the largest value
    that is added to the same weight."""

    weights: int
    largest_error: float


def compare(found: Iterable[Addition], path: Path, progress: Progress = silent) -> Merge:
    """Compare the adapter file at ``path`` with the merges that it stands for, about 2 MiB at a time.

    Raises:
        VerificationFailed: a tensor is missing, or differs by more than the rounding of its element type.
        BadCheckpoint: the adapter has values that are not finite.
    """
    file, additions = gguf.read(path), list(found)
    wanted = {name for addition in additions for name in addition.halves}
    if wanted != file.tensors.keys():
        raise VerificationFailed(
            f"the adapter has other tensors than its pairs: {sorted(wanted ^ file.tensors.keys())}"
        )
    largest = 0.0
    for number, addition in enumerate(additions, 1):
        error = _error(addition, file)
        kind = file.tensors[f"{addition.target}.lora_b"].type.name
        if error == math.inf:
            raise BadCheckpoint(f"the adapter has values for {addition.target} that are not finite, or too large",
                                hint="its training went wrong, or a file is damaged")  # fmt: skip
        if error > TOLERANCE[kind]:
            raise VerificationFailed(
                f"what llama.cpp would add to {addition.target} differs from PEFT's merge by {error:.2g} of its size",
                hint="the adapter would not be what was trained; it is not kept. Please report it",
            )
        largest = max(largest, error)
        progress("merge", number, len(additions))
    return Merge(len(additions), largest)


def _error(addition: Addition, file: GGUF) -> float:
    """The largest difference, over the largest value; infinite where a value is not finite."""
    a, b = (_matrices(file, f"{addition.target}.lora_{half}") for half in "ab")
    if addition.target == EMBEDDING:
        a, b = b.swapaxes(1, 2), a
    height, start, difference, size = b.shape[1], 0, 0.0, 0.0
    with np.errstate(all="ignore"):
        for chunk in addition.rows.chunks():
            stop = start + len(chunk)
            added = (b[0] @ a[0])[0, start:stop] if chunk.ndim == 1 else np.concatenate([
                b[matrix, max(start - matrix * height, 0) : min(stop - matrix * height, height)] @ a[matrix]
                for matrix in range(start // height, (stop - 1) // height + 1)
            ])  # fmt: skip
            size = max(size, _largest(chunk))
            difference = max(difference, _largest(np.subtract(added, chunk, out=added)))
            start = stop
    if math.inf in (size, difference):
        return math.inf
    return difference / size if size else difference


def _largest(values: NDArray[np.float32]) -> float:
    """The largest magnitude, infinite where a value is not finite. Two passes, and no copy."""
    low, high = float(values.min()), float(values.max())
    return max(-low, high) if math.isfinite(low) and math.isfinite(high) else math.inf


def _matrices(file: GGUF, name: str) -> NDArray[np.float32]:
    """A half of a pair as f32, of shape (matrices, height, width)."""
    values = to_f32(file.tensor(name), file.tensors[name].type.name)
    return values.reshape(-1, *values.shape[-2:])
