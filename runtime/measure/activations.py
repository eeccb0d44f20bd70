"""The importance matrix of a model: sums of the squares of what each weight is multiplied with, on a text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError
from ...convert.progress import Progress, silent
from ...quantize import imatrix
from ...quantize.imatrix import Importance, ImportanceMatrix
from ..llama.model import NativeModel
from ..llama.node import Product, is_product, product
from ..llama.scoring import ScoringContext, ScoringOptions
from ..machine import thread_count
from ..store import places
from . import passage
from .passage import Passage
from .steps import pack, packing
from .wish import Wish, loaded

Squares = NDArray[np.float32]


def collect(model: Path, wish: Wish, progress: Progress = silent) -> ImportanceMatrix:
    """Read a text with ``model`` and sum up the squares of the inputs of all weights of its blocks.

    Every token counts: of a text in its chunks (as in llama-imatrix), or of each record.

    Raises:
        InputError: the text is of no use. UnsupportedModel: a model that predicts no next tokens.
        BadGGUF, LoadFailed: it cannot be loaded. EngineError: an activation is not finite.
    """
    with ExitStack() as stack:
        native = loaded(model, stack)
        material = passage.read(wish.on, native, wish.length, wish.most)
        entries = collect_from(native, material.passages, wish.threads or thread_count(), progress)
    return ImportanceMatrix(entries, (wish.on.name,), wish.length or passage.CHUNK, material.sha256)


def collect_from(
    native: NativeModel, passages: Sequence[Passage], threads: int, progress: Progress = silent, *, head: bool = False
) -> dict[str, Importance]:
    """Of each weight of its blocks; with ``head``, too, of the matrix that gives the logits, which llama-imatrix leaves
    out (it is the embedding in many models)."""
    whole = [Passage(one.tokens, 0) for one in passages]
    gathered = Gathered(head)
    with ExitStack() as stack:
        _read_all(native, whole, threads, gathered, stack, progress)
    return gathered.entries()


def kept(model: Path, wish: Wish, progress: Progress = silent) -> Path:
    """The file of :func:`collect`'s matrix, in ``INGLE_HOME``: collected only where it is not there yet."""
    status = model.stat()
    corpus = hashlib.sha256(passage.contents(wish.on)).hexdigest()
    facts = (str(model.resolve()), status.st_size, status.st_mtime_ns, corpus, wish.on.name, wish.length, wish.most)
    path = places.home() / "imatrix" / f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:32]}.gguf"
    if not path.exists():
        found = collect(model, wish, progress)
        places.create_private(path.parent)
        imatrix.write(path, found)
    return path


def _read_all(
    native: NativeModel,
    passages: list[Passage],
    threads: int,
    gathered: Gathered,
    stack: ExitStack,
    progress: Progress,
) -> None:
    longest = max(len(one.tokens) for one in passages)
    chosen = packing(longest, native.vocab.size)
    options = ScoringOptions(chosen.sequences, longest, chosen.rows, threads)
    context = ScoringContext(native, options, gathered.watch)
    stack.callback(context.close)
    total, done = sum(len(one.tokens) for one in passages), 0
    for step in pack(passages, chosen):
        context.compute(step.spans, fresh=step.fresh)
        done += step.tokens
        progress("imatrix", done, total)


class Gathered:
    """What was summed so far. :meth:`watch` is the eval callback."""

    def __init__(self, head: bool = False) -> None:
        self._head = head
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._last: tuple[int, Squares] | None = None

    def watch(self, node: int, ask: bool) -> bool:
        if ask:
            return is_product(node, head=self._head)
        found = product(node)
        if found.chosen is None:
            self._add(
                found.weight, self._dense(found), np.array([found.inputs[..., 0].size // np.prod(found.matrices)])
            )
        else:
            self._add(found.weight, *_by_expert(found, found.chosen))
        return True

    def entries(self) -> dict[str, Importance]:
        return {name: Importance(sums, self._counts[name]) for name, sums in self._sums.items()}

    def _dense(self, found: Product) -> Squares:
        """(matrices, width). Query, key and value have the same inputs, one after another: summed once."""
        if self._last is None or self._last[0] != found.source or found.matrices != (1, 1):
            self._last = (found.source, _by_matrix(found))
        return self._last[1]

    def _add(self, name: str, sums: Squares, counts: NDArray[np.int64]) -> None:
        if not np.isfinite(sums).all():
            raise EngineError(f"an input of {name} is not finite, or its square is not")
        if name not in self._sums:
            self._sums[name] = np.zeros(sums.shape, np.float64)
            self._counts[name] = np.zeros(counts.shape, np.int64)
        self._sums[name] += sums
        self._counts[name] += counts


def _by_matrix(found: Product) -> Squares:
    """Inputs of dimensions 2 and 3 meet the matrices of the weight in turn."""
    outer, inner = found.matrices
    width = found.inputs.shape[-1]
    sums = np.zeros((outer, inner, width), np.float32)
    for third, group in enumerate(found.inputs):
        for second, rows in enumerate(group):
            sums[third % outer, second % inner] += np.einsum("ij,ij->j", rows, rows)
    return sums.reshape(-1, width)


def _by_expert(found: Product, chosen: NDArray[np.int32]) -> tuple[Squares, NDArray[np.int64]]:
    """Sums and counts of each expert: a token counts for those that it was sent to."""
    experts = found.matrices[1]
    (inputs,) = found.inputs
    used = chosen.shape[1]
    order = np.argsort(chosen.ravel(), kind="stable")
    token, slot = np.divmod(order, used)
    rows = inputs[token, slot % inputs.shape[1]]
    present, starts = np.unique(chosen.ravel()[order], return_index=True)
    sums = np.zeros((experts, inputs.shape[-1]), np.float32)
    sums[present] = np.add.reduceat(rows * rows, starts, axis=0)
    return sums, np.bincount(chosen.ravel(), minlength=experts).astype(np.int64)
