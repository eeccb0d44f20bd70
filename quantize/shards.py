"""A model in pieces: each weight, in each type it was tried in, a file of its own, kept from one mixture to the next.

llama.cpp loads a model from several files where each has its number (``split.no``) and the first their count. So a
mixture of types needs no file of its own before it is chosen: one piece per weight is enough, whichever types they are.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert import gguf
from ..convert.files import appearing, require_space
from ..convert.ggml import GGMLType
from . import blocks
from .choices import NEED_IMPORTANCE
from .imatrix import ImportanceMatrix

KERNELS = 1
"""Raised when the same weight and type would give other bytes than before: older pieces are then not used."""

SAMPLE_WEIGHTS = 1 << 15
MOST_BYTES = 64 << 30
"""Of pieces of all models together; those of models not used for longest go first."""

SLAB_WEIGHTS = 1 << 22


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that can be quantized: its place in the file, and the mean square of its inputs, (matrices, width)."""

    info: gguf.TensorInfo
    number: int
    importance: NDArray[np.float32] | None

    @property
    def width(self) -> int:
        return self.info.shape[-1]

    @property
    def matrices(self) -> int:
        return self.info.shape[-3] if len(self.info.shape) > 2 else 1

    @property
    def values(self) -> int:
        return math.prod(self.info.shape)

    def fits(self, element: GGMLType) -> bool:
        """Whether its rows divide into the blocks of a type, and it has the importance that the type needs."""
        needs = element.name in NEED_IMPORTANCE
        return self.width % element.block == 0 and not (needs and self.importance is None)


@dataclass(frozen=True, slots=True)
class Shards:
    """The pieces of ``source`` in ``folder``; weights by name."""

    source: gguf.GGUF
    folder: Path
    weights: Mapping[str, Weight]
    pool: Executor = field(repr=False)

    @property
    def total(self) -> int:
        """Files of a mixture: the first, of all that is not quantized, and one per weight."""
        return 1 + len(self.weights)

    def parts(self, mix: Mapping[str, GGMLType]) -> list[Path]:
        """The files of a mixture, made where they are not there yet."""
        return [self.first(), *(self.piece(name, mix[name]) for name in self.weights)]

    def first(self) -> Path:
        """Metadata, and the tensors that stay as they are."""
        path = self.folder / "first.gguf"
        if not path.exists():
            rest = [_kept(self.source, info) for name, info in self.source.tensors.items() if name not in self.weights]
            counts: dict[str, gguf.Value] = {
                "split.no": np.uint16(0),
                "split.count": np.uint16(self.total),
                "split.tensors.count": np.int32(len(self.source.tensors)),
            }
            with appearing(path) as partial:
                gguf.write(partial, {**self.source.metadata, **counts}, rest)
        return path

    def piece(self, name: str, element: GGMLType) -> Path:
        """One weight as ``element``."""
        weight = self.weights[name]
        path = self.folder / f"{weight.number:05}-{element.name}.gguf"
        if not path.exists():
            plan = gguf.TensorPlan(name, weight.info.shape, element, lambda: self._encoded(weight, element))
            require_space(self.folder, plan.nbytes)
            with appearing(path) as partial:
                gguf.write(partial, {"split.no": np.uint16(weight.number)}, [plan])
        return path

    def has(self, name: str, element: GGMLType) -> bool:
        return (self.folder / f"{self.weights[name].number:05}-{element.name}.gguf").exists()

    def data(self, name: str, element: GGMLType) -> NDArray[Any]:
        """The bytes of one weight as ``element``, from its piece."""
        if element is self.weights[name].info.type:
            return self.source.tensor(name)
        return gguf.read(self.piece(name, element)).tensor(name)

    def error(self, name: str, element: GGMLType) -> float:
        """Of the weight's products, the share that ``element`` changes: sum of w (x - y)² over that of w x², w the
        importance of each input. Taken from a sample of the rows."""
        weight = self.weights[name]
        if element is weight.info.type:
            return 0.0
        changed = whole = 0.0
        for rows, importance in self._sample(weight):
            scale = importance if importance is not None else np.ones(weight.width, np.float32)
            seen = blocks.decode(blocks.encode(rows, element, importance, self.pool), element, weight.width)
            changed += float((scale @ ((rows - seen) ** 2).T).sum(dtype=np.float64))
            whole += float((scale @ (rows**2).T).sum(dtype=np.float64))
        return changed / whole if whole else 0.0

    def _encoded(self, weight: Weight, element: GGMLType) -> Iterator[NDArray[Any]]:
        values = self.source.tensor(weight.info.name)
        if element is weight.info.type:
            yield values
            return
        rows = values.reshape(weight.matrices, -1, weight.width)
        height = max(1, SLAB_WEIGHTS // weight.width)
        for index, matrix in enumerate(rows):
            importance = weight.importance[index] if weight.importance is not None else None
            for start in range(0, len(matrix), height):
                slab = blocks.as_f32(matrix[start : start + height])
                yield blocks.encode(slab, element, importance, self.pool)

    def _sample(self, weight: Weight) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Rows of some of the matrices, with their importance."""
        values = self.source.tensor(weight.info.name).reshape(weight.matrices, -1, weight.width)
        wanted = max(8, SAMPLE_WEIGHTS // weight.width)
        matrices = range(0, weight.matrices, max(1, weight.matrices // 4))
        for index in matrices:
            stride = max(1, values.shape[1] * len(matrices) // wanted)
            yield (
                blocks.as_f32(values[index, ::stride]),
                weight.importance[index] if weight.importance is not None else None,
            )


def shards(
    home: Path, source: gguf.GGUF, names: Sequence[str], matrix: ImportanceMatrix | None, pool: Executor
) -> Shards:
    """The pieces of a model, in a folder of ``home`` that is named by the bytes of the model and of the matrix."""
    weights = {name: _weight(source, name, number, matrix) for number, name in enumerate(names, 1)}
    key = hashlib.sha256(f"{KERNELS}\n{file_sha256(source.path, home)}\n".encode())
    for weight in weights.values():
        key.update(weight.info.name.encode())
        key.update(weight.importance.tobytes() if weight.importance is not None else b"-")
    folder = home / key.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.utime(folder)
    _make_room(home, folder)
    return Shards(source, folder, weights, pool)


def file_sha256(path: Path, home: Path) -> str:
    """Of a file's bytes, remembered for as long as its size and time are the same."""
    status = path.stat()
    facts = repr((str(path.resolve()), status.st_size, status.st_mtime_ns))
    kept = home / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.sha256"
    if kept.exists():
        return kept.read_text()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with appearing(kept) as partial:
        partial.write_text(found)
    return found


def _weight(source: gguf.GGUF, name: str, number: int, matrix: ImportanceMatrix | None) -> Weight:
    info = source.tensors[name]
    entry = matrix.entries.get(name) if matrix else None
    values = entry.weights.reshape(-1, info.shape[-1]) if entry is not None else None
    return Weight(info, number, values)


def _kept(source: gguf.GGUF, info: gguf.TensorInfo) -> gguf.TensorPlan:
    return gguf.TensorPlan(info.name, info.shape, info.type, lambda: [source.tensor(info.name)])


def _make_room(home: Path, mine: Path) -> None:
    """Remove the pieces of models that were not used for longest, until all take at most ``MOST_BYTES``."""
    folders = sorted((path for path in home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in folders}
    for folder in folders:
        if sum(sizes.values()) > MOST_BYTES and folder != mine:
            shutil.rmtree(folder)
            del sizes[folder]
