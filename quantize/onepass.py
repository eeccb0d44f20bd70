"""From a checkpoint to a quantized file in one pass: rows are read, quantized and written where they belong.

The result is, byte for byte, what ``convert`` to ``dtype`` and ``quantize`` make one after the other; the large file
between them is never written. llama.cpp itself decides the types, on an outline of that file: its header and a hole.
What a killed process had finished is found again (:mod:`.journal`), checked and kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np

from ..convert import gguf, pipeline
from ..convert.errors import InputError
from ..convert.files import continuing, require_space, scratch
from ..convert.ggml import GGMLType
from ..convert.origin import Hashing, Origin
from ..convert.pipeline import Conversion
from ..convert.plan import RowsPlan
from ..convert.progress import Progress, silent
from ..convert.source import Source
from ..convert.tensor import Arrive
from ..convert.vocabulary import Vocabulary
from . import Choices, Quantized, plan
from .journal import Journal
from .kernels import Task, Workers
from .native import usable_cpus
from .plan import Plan, added_metadata, trimmed
from .proving import Prove, Proving

PIECE_WEIGHTS = 1 << 20
RELEASE_BYTES = 32 << 20
"""Memory of the mapped checkpoint is let go each time that so much of a tensor was read, and at its end."""


@dataclass(frozen=True, slots=True)
class OnePass:
    """A checkpoint that was converted and quantized. resumed_bytes: what an earlier run, which was killed, had done."""

    conversion: Conversion
    quantized: Quantized
    resumed_bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``start`` to ``stop`` of a tensor, all of one of its matrices, and the byte of the file where they go."""

    number: int
    tensor: RowsPlan
    target: GGMLType
    start: int
    stop: int
    offset: int

    def __str__(self) -> str:
        return f"tensor {self.tensor.name}"

    @property
    def width(self) -> int:
        return _width(self.tensor)

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * self.target.row_bytes(self.width)

    @property
    def given_bytes(self) -> int:
        return (self.stop - self.start) * self.tensor.type.row_bytes(self.width)


def convert(
    folder: Path,
    out: Path,
    type_name: str,
    *,
    dtype: str = "auto",
    choices: Choices | None = None,
    clip: bool = False,
    threads: int | None = None,
    settle: Callable[[Vocabulary], Vocabulary] | None = None,
    prove: Prove | None = None,
    arrive: Arrive | None = None,
    identity: str = "",
    origin: Origin | None = None,
    progress: Progress = silent,
) -> OnePass:
    """Convert a checkpoint folder to a GGUF file of ``type_name``, without a file in between.

    Args:
        dtype: auto, f32, f16 or bf16: what the values would be in the file that is not written; what is not quantized
            (vectors, norms, some small matrices) is stored so.
        prove: sees the file before its name does, while its tensors are being written: it may judge metadata, tokens
            and templates at once. When it asks for a file that is not quantized, it waits until they are.
        identity: what the checkpoint is, where its files are not all here to be looked at; an earlier run that was
            killed is continued only if it had the same.
        The others are those of :func:`ingle.convert.convert` and :func:`ingle.quantize.quantize`.

    Raises: what those two raise.
    """
    source, found = pipeline.prepared(folder, out, _plain(dtype), clip=clip, settle=settle, arrive=arrive)
    hashing = pipeline.hashing(source, origin)
    metadata = _metadata(source, hashing, proven=prove is not None)
    planned = _planned(source, metadata, type_name, choices or Choices())
    layout = Layout.of(planned, source.plans, metadata)
    require_space(out.parent, planned.size_bytes + pipeline.projector_bytes(source))
    key = _key(source, layout, planned.choices, identity or _identity(source))
    with (
        continuing(out, key) as partial,
        Journal(partial, layout.size_bytes, len(layout.pieces)) as journal,
        hashing as hashes,
    ):
        journal.write_header(layout.header({}))
        with Proving(prove, partial, lambda: _unquantized(source, metadata, out, progress)) as proving:
            resumed_bytes = _write(partial, layout, journal, source, planned.choices, threads, proving, progress)
            late = proving.found()
        journal.write_header(layout.header(late | hashes.found()))
        journal.close()
        projector = pipeline.project(source, out, progress)
    conversion = pipeline.done(source, out, planned.type.name, found, projector)
    return OnePass(conversion, Quantized.of(planned, out), resumed_bytes)


def preview(
    folder: Path, type_name: str, *, dtype: str = "auto", choices: Choices | None = None, origin: Origin | None = None
) -> Plan:
    """What :func:`convert` would make, and prove, from headers and configs alone; metadata that only a trial of the
    vocabulary can tell are not counted. Raises: what it raises before it writes."""
    source = Source(folder, _plain(dtype))
    metadata = _metadata(source, pipeline.hashing(source, origin), proven=True)
    return _planned(source, metadata, type_name, choices or Choices())


def _metadata(source: Source, hashing: Hashing, *, proven: bool) -> dict[str, gguf.Value]:
    """Of the file, as long as they will be."""
    return source.metadata | source.head_weights() | hashing.expected | (pipeline.proof(None) if proven else {})


def _plain(dtype: str) -> str:
    if dtype.lower() == "q8_0":
        raise InputError("q8_0 is no type to quantize from", hint="leave --dtype out, or take f32, f16 or bf16")
    return dtype


def _planned(source: Source, metadata: Mapping[str, gguf.Value], type_name: str, choices: Choices) -> Plan:
    """What llama.cpp would make of the file that is not written. The plan's source is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
        outline = Path(folder) / f"{source.folder.resolve().name}.gguf"
        head = gguf.header(metadata, source.plans)
        outline.write_bytes(head)
        os.truncate(outline, len(head) + sum(gguf.padded(tensor.nbytes) for tensor in source.plans))
        return plan(outline, type_name, choices=choices)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of the file goes. pieces: in the order of the checkpoint, which may be arriving."""

    metadata: Mapping[str, gguf.Value]
    tensors: Sequence[gguf.TensorPlan]
    pieces: Sequence[Piece] = field(repr=False)
    size_bytes: int

    @classmethod
    def of(cls, planned: Plan, sources: Sequence[RowsPlan], metadata: Mapping[str, gguf.Value]) -> Layout:
        own = added_metadata(planned.type, planned.choices)
        ordered = {**{key: value for key, value in metadata.items() if key not in own}, **own}
        rows = {tensor.name: tensor for tensor in sources}
        tensors = [
            gguf.TensorPlan(name, trimmed(rows[name].shape), element, tuple)
            for name, element in planned.tensors.items()
        ]
        offsets, offset = {}, len(gguf.header(ordered, tensors))
        for tensor in tensors:
            offsets[tensor.name] = offset
            offset += gguf.padded(tensor.nbytes)
        return cls(ordered, tensors, tuple(_pieces(sources, planned.tensors, offsets)), offset)

    def header(self, changed: Mapping[str, gguf.Value]) -> bytes:
        """All bytes before the first tensor's, with ``changed`` metadata, which must be as long as they were."""
        return gguf.header({**self.metadata, **changed}, self.tensors)


def _pieces(
    sources: Sequence[RowsPlan], elements: Mapping[str, GGMLType], offsets: Mapping[str, int]
) -> Iterator[Piece]:
    number = 0
    for tensor in sources:
        element, width = elements[tensor.name], _width(tensor)
        matrix = tensor.shape[-2] if len(tensor.shape) > 1 else tensor.height
        step = max(1, PIECE_WEIGHTS // width)
        for top in range(0, tensor.height, matrix):
            for start in range(top, top + matrix, step):
                offset = offsets[tensor.name] + start * element.row_bytes(width)
                yield Piece(number, tensor, element, start, min(start + step, top + matrix), offset)
                number += 1


def _width(tensor: RowsPlan) -> int:
    """Values of a row, as the tensor's plan counts rows."""
    return tensor.shape[-1] if len(tensor.shape) > 1 else 1


def _key(source: Source, layout: Layout, choices: Choices, identity: str) -> str:
    """Of all that decides the bytes of the file."""
    importance = choices.imatrix.sha256 if choices.imatrix else ""
    parts = (identity, source.dtype, importance, packages.version("llama-cpp-python"), source.overflow.clip)
    return hashlib.sha256(repr(parts).encode() + layout.header({})).hexdigest()[:32]


def _identity(source: Source) -> str:
    files = sorted({tensor.file.resolve() for tensor in source.tensors.values()})
    states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _write(
    partial: Path,
    layout: Layout,
    journal: Journal,
    source: Source,
    choices: Choices,
    threads: int | None,
    proving: Proving,
    progress: Progress,
) -> int:
    """Write all pieces that are not there yet; returns the bytes of those that are."""
    loader = _Loader(source, choices)
    missing, resumed_bytes = [], 0
    for piece in layout.pieces:
        lost = journal.finished(piece.number, piece.offset, piece.nbytes)
        if lost is None:
            missing.append(piece)
        else:
            resumed_bytes += piece.nbytes
            loader.lost(piece, lost)
    done_bytes, total = resumed_bytes, sum(piece.nbytes for piece in layout.pieces)
    progress("quantize", done_bytes, total)
    if not missing:
        return resumed_bytes
    slot_bytes = max(piece.given_bytes + 4 * piece.width + 64 for piece in missing)
    with Workers[Piece](partial, min(threads or usable_cpus(), len(missing)), slot_bytes) as workers:
        loader.memory = workers.memory
        for piece, crc in workers.run(missing, loader.load):
            journal.note(piece.number, piece.nbytes, crc, loader.counts.pop(piece.number, 0))
            done_bytes += piece.nbytes
            progress("quantize", done_bytes, total)
            proving.require_sound()
    return resumed_bytes


class _Loader:
    """Puts rows where the workers find them.

    counts: by the number of a piece, how many of its values were clipped.
    """

    def __init__(self, source: Source, choices: Choices) -> None:
        self.memory: Any = None
        self.counts: dict[int, int] = {}
        self._overflow = source.overflow
        self._entries = choices.imatrix.matrix.entries if choices.imatrix else {}
        self._weights: tuple[str, Any] = ("", None)
        self._reading: RowsPlan | None = None
        self._read_bytes = 0

    def load(self, piece: Piece, slot: int) -> Task:
        name = piece.tensor.name
        before = self._overflow.counts[name]
        rows = piece.tensor.encoded(piece.start, piece.stop)
        self._overflow.require_none()
        if lost := self._overflow.counts[name] - before:
            self.counts[piece.number] = lost
        np.ndarray(rows.shape, rows.dtype, self.memory, slot)[...] = rows
        self._release(piece)
        place = slot + gguf.padded(piece.given_bytes)
        weights = self._importance(piece)
        if weights is not None:
            np.ndarray(weights.shape, weights.dtype, self.memory, place)[...] = weights
        return Task(
            slot,
            piece.stop - piece.start,
            piece.width,
            piece.tensor.type.id,
            piece.target.id,
            piece.offset,
            -1 if weights is None else place,
        )

    def lost(self, piece: Piece, count: int) -> None:
        """So many values were clipped by the run that made this piece."""
        if count:
            self._overflow.counts[piece.tensor.name] += count

    def _importance(self, piece: Piece) -> Any:
        """(width,) f32: of the inputs of the piece's matrix; None where it is not quantized, or nothing is known."""
        name = piece.tensor.name
        if piece.target is piece.tensor.type or name not in self._entries:
            return None
        if self._weights[0] != name:
            self._weights = (name, self._entries[name].weights.reshape(-1, piece.width))
        weights = self._weights[1]
        return weights[piece.start // piece.tensor.shape[-2]]

    def _release(self, piece: Piece) -> None:
        if self._reading is not None and (self._read_bytes >= RELEASE_BYTES or self._reading is not piece.tensor):
            self._reading.release()
            self._read_bytes = 0
        self._reading = piece.tensor
        self._read_bytes += piece.given_bytes


@contextlib.contextmanager
def _unquantized(source: Source, metadata: Mapping[str, gguf.Value], out: Path, progress: Progress) -> Iterator[Path]:
    counts = source.overflow.counts.copy()
    require_space(out.parent, source.size_bytes)
    with scratch(out) as path:
        gguf.write(path, metadata, source.plans, progress)
        source.overflow.counts = counts
        yield path
