"""Importance matrices: how large the inputs of each weight are, which tells the quantizer what to keep exact.

The file is llama.cpp's own: a GGUF with ``NAME.in_sum2`` and ``NAME.counts`` for each weight (tools/imatrix).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..convert import gguf
from ..convert.errors import BadGGUF, InputError
from ..convert.files import appearing
from ..convert.ggml import TYPES

SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS_KEY = "imatrix.datasets"
CHUNK_COUNT_KEY = "imatrix.chunk_count"
CHUNK_SIZE_KEY = "imatrix.chunk_size"
CORPUS_KEY = "ingle.imatrix.corpus_sha256"


@dataclass(frozen=True, slots=True)
class Importance:
    """Of one weight. sums: of the squares of its inputs, (matrices, width); counts: of rows summed, (matrices,), or
    (1,) for all matrices together."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def weights(self) -> NDArray[np.float32]:
        """The mean square of each input, (matrices * width,), as llama-quantize takes it; 1 for what was never used."""
        sums = self.sums.astype(np.float32).reshape(len(self.counts), -1)
        counts = self.counts.astype(np.float32)[:, None]
        means = np.divide(sums, counts, out=np.ones_like(sums), where=counts > 0)
        return means.ravel()

    @property
    def unused(self) -> int:
        """Matrices (experts) that no row reached."""
        return int((self.counts == 0).sum())


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """entries: by the name of the weight. datasets: the names of the texts; chunk_size: tokens of a chunk of them.

    corpus_sha256: of the texts, joined by commas where there were several; empty for files of others.
    """

    entries: Mapping[str, Importance]
    datasets: tuple[str, ...]
    chunk_size: int
    corpus_sha256: str = ""

    @property
    def chunk_count(self) -> int:
        """Chunks that the weight which saw most rows has seen."""
        most = max((int(entry.counts.max()) for entry in self.entries.values()), default=0)
        return most // self.chunk_size if self.chunk_size else 0

    def merged(self, other: ImportanceMatrix) -> ImportanceMatrix:
        """Both together, as if both texts had been read at once.

        Raises:
            InputError: they are of models of different shapes.
        """
        entries = dict(self.entries)
        for name, theirs in other.entries.items():
            mine = entries.get(name)
            if mine is not None and (mine.sums.shape, mine.counts.shape) != (theirs.sums.shape, theirs.counts.shape):
                raise InputError(
                    f"{name} has {mine.sums.shape} values in one importance matrix, {theirs.sums.shape} in another"
                )
            entries[name] = Importance(mine.sums + theirs.sums, mine.counts + theirs.counts) if mine else theirs
        corpora = ",".join(filter(None, (self.corpus_sha256, other.corpus_sha256)))
        return ImportanceMatrix(entries, self.datasets + other.datasets, self.chunk_size or other.chunk_size, corpora)


@dataclass(frozen=True, slots=True)
class Imatrix:
    """An importance matrix in use: read from ``path``; sha256 is that of the file."""

    path: Path
    sha256: str
    matrix: ImportanceMatrix = field(repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> Imatrix:
        """Raises what :func:`read` raises."""
        matrix = read(path)
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest(), matrix)


def read(path: Path) -> ImportanceMatrix:
    """Read a file of ours or of llama-imatrix.

    Raises:
        BadGGUF: it is no GGUF. InputError: it is one of something else, or of llama.cpp's older format.
    """
    if path.is_file() and path.read_bytes()[:4] != gguf.MAGIC:
        raise InputError(
            f"{path} is no GGUF file: importance matrices of the older format are not read",
            hint=f"llama-imatrix --in-file {path} --output-format gguf -o new.gguf converts it",
        )
    file = gguf.read(path)
    names = sorted(name.removesuffix(SUMS) for name in file.tensors if name.endswith(SUMS))
    if file.metadata.get("general.type") != "imatrix" or not names:
        raise InputError(f"{path} is a GGUF file, but no importance matrix", hint="make one with `ingle imatrix`")
    datasets = file.metadata.get(DATASETS_KEY, [])
    size = file.metadata.get(CHUNK_SIZE_KEY, 0)
    return ImportanceMatrix(
        {name: _entry(file, name) for name in names},
        tuple(datasets) if isinstance(datasets, list) else (),
        int(size) if isinstance(size, int) else 0,
        str(file.metadata.get(CORPUS_KEY, "")),
    )


def write(path: Path, matrix: ImportanceMatrix) -> None:
    """Write a file that llama-quantize and llama-imatrix read, too; whole or not at all."""
    metadata: dict[str, gguf.Value] = {
        "general.type": "imatrix",
        DATASETS_KEY: list(matrix.datasets),
        CHUNK_COUNT_KEY: matrix.chunk_count,
        CHUNK_SIZE_KEY: matrix.chunk_size,
        **({CORPUS_KEY: matrix.corpus_sha256} if matrix.corpus_sha256 else {}),
    }
    with appearing(path) as partial:
        gguf.write(partial, metadata, _plans(matrix.entries))


def _entry(file: gguf.GGUF, name: str) -> Importance:
    counts_name = name + COUNTS
    if counts_name not in file.tensors:
        raise BadGGUF(f"{file.path} has the sums of {name}, but not their counts")
    for info in (file.tensors[name + SUMS], file.tensors[counts_name]):
        if info.type.name != "F32":
            raise BadGGUF(f"{file.path} has {info.name} as {info.type.name}; it must be F32")
    sums, counts = file.tensor(name + SUMS), np.rint(file.tensor(counts_name)).astype(np.int64).ravel()
    if sums.size % counts.size or not np.isfinite(sums).all() or (sums < 0).any() or (counts < 0).any():
        raise BadGGUF(f"{file.path} has sums of {name} that are none, or do not divide among its counts")
    return Importance(np.atleast_2d(sums.astype(np.float64)), counts)


def _plans(entries: Mapping[str, Importance]) -> Iterator[gguf.TensorPlan]:
    for name in sorted(entries):
        entry = entries[name]
        yield _plan(name + SUMS, entry.sums.astype(np.float32).reshape(len(entry.counts), -1))
        yield _plan(name + COUNTS, entry.counts.astype(np.float32)[:, None])


def _plan(name: str, values: NDArray[np.float32]) -> gguf.TensorPlan:
    def chunks() -> Iterable[NDArray[np.float32]]:
        return [values]

    shape = values.shape if len(values) > 1 else values.shape[1:]
    return gguf.TensorPlan(name, shape, TYPES["F32"], chunks)
