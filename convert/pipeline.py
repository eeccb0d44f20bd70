"""From a checkpoint folder to a GGUF file: look, plan, write, prove, and only then give the file its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import gguf, plan
from .errors import BadCheckpoint, InputError
from .files import appearing, projector_beside, require_space
from .inspection import warnings
from .origin import Hashing, Origin
from .progress import Progress, silent
from .report import Item
from .source import Source
from .tensor import Arrive
from .vocabulary import Vocabulary

PROOF_KEY = "ingle.proof"
# The proof is known when the file is written, so that its place is kept.
PROOF_BYTES = 512


@dataclass(frozen=True, slots=True)
class Projector:
    """The file of a vision part."""

    path: Path
    size_bytes: int
    dtype: str
    num_tensors: int
    num_parameters: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished conversion.

    dropped: each source tensor that was left out, with the reason. clipped: how many values of each tensor were too
    large for f16 and became the largest that it has, which only ``clip`` allows. projector: the vision part, in a file
    beside ``path``.
    """

    path: Path
    size_bytes: int
    architecture: str
    dtype: str
    num_tensors: int
    num_parameters: int
    dropped: Mapping[str, str]
    clipped: Mapping[str, int]
    warnings: tuple[Item, ...]
    projector: Projector | None = None


def convert(
    folder: Path,
    out: Path,
    dtype: str = "auto",
    *,
    clip: bool = False,
    settle: Callable[[Vocabulary], Vocabulary] | None = None,
    prove: Callable[[Path], Mapping[str, Any]] | None = None,
    arrive: Arrive | None = None,
    origin: Origin | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Convert a checkpoint folder to a GGUF file.

    The file is complete, and ``prove`` (given its temporary path) has returned, before ``out`` exists; whatever goes
    wrong leaves nothing behind. What ``prove`` found is in the file, as ``ingle.proof``. The checkpoint is only read.
    Its vision part, if it has one, appears first, as ``files.projector_beside(out)``.

    Args:
        settle: decides what only a trial of the vocabulary can tell, before anything is written.
        dtype: auto (that of the checkpoint), f32, f16, bf16 or q8_0. Vectors and norms are always f32.
        clip: store values that are too large for f16 as the largest that it has, instead of refusing them.
        arrive: where of the weights only the headers are in ``folder``: waits for a file of weights, and maps it.
        origin: has the file say what it was made of (:mod:`.origin`), the hashes of the checkpoint's files included.

    Raises:
        BadCheckpoint, UnsupportedModel: what ``check`` reports as ``fail``, before anything is written; or a value
            that does not fit into the type.
        UnknownType: no such dtype.
        InputError: ``out`` is a folder or a file of the checkpoint.
        VerificationFailed: from ``settle`` or ``prove``.
        DiskFull, StorageError: the file could not be written.
    """
    source, found = prepared(folder, out, dtype, clip=clip, settle=settle, arrive=arrive)
    require_space(out.parent, source.size_bytes + projector_bytes(source))
    with appearing(out) as partial, hashing(source, origin) as hashes:
        metadata = source.metadata | source.head_weights() | hashes.expected | (proof(None) if prove else {})
        gguf.write(partial, metadata, source.plans, progress)
        source.overflow.require_none()
        if late := (proof(prove(partial)) if prove else {}) | hashes.found():
            gguf.rewrite(partial, metadata | late, source.plans)
        projector = project(source, out, progress)
    return done(source, out, source.dtype, found, projector)


def prepared(
    folder: Path,
    out: Path,
    dtype: str,
    *,
    clip: bool,
    settle: Callable[[Vocabulary], Vocabulary] | None,
    arrive: Arrive | None,
) -> tuple[Source, tuple[Item, ...]]:
    """A checkpoint that can be converted into ``out``, its vocabulary settled; and the warnings about it.

    Raises: what :func:`convert` raises before it writes.
    """
    source = Source(folder, dtype, arrive, clip=clip)
    warnings(source)
    source.settle(settle)
    found = warnings(source)
    _check_out(source, out)
    _check_tied(source)
    return source, found


def hashing(source: Source, origin: Origin | None) -> Hashing:
    """The hashes of the files of ``source``, in the making while the block runs."""
    return Hashing(origin, source.folder, {tensor.file for tensor in source.tensors.values()}, source.arrive)


def done(source: Source, out: Path, dtype: str, found: tuple[Item, ...], projector: Projector | None) -> Conversion:
    """What was made of ``source`` at ``out``."""
    return Conversion(
        path=out,
        size_bytes=out.stat().st_size,
        architecture=source.family.arch,
        dtype=dtype,
        num_tensors=len(source.plans),
        num_parameters=source.num_parameters,
        dropped=source.matched.dropped,
        clipped=dict(source.overflow.counts),
        warnings=found,
        projector=projector,
    )


def projector_bytes(source: Source) -> int:
    """The size of the vision part's file; 0 where there is none."""
    return source.projection.size_bytes if source.projection else 0


def project(source: Source, out: Path, progress: Progress) -> Projector | None:
    """Write the vision part, if there is one, beside the language model that goes to ``out``."""
    projection = source.projection
    if projection is None:
        return None
    target, plans = projector_beside(out), projection.plans
    with appearing(target) as partial:
        gguf.write(partial, projection.metadata, plans, progress)
        projection.overflow.require_none()
    return Projector(target, target.stat().st_size, projection.dtype, len(plans), plan.num_parameters(plans))


def proof(found: Mapping[str, Any] | None) -> dict[str, gguf.Value]:
    """The key of a proof, always as long."""
    text = json.dumps(found)
    if len(text) > PROOF_BYTES:
        raise ValueError(f"a proof of {len(text)} bytes has no place: {text}")
    return {PROOF_KEY: text.ljust(PROOF_BYTES)}


def _check_out(source: Source, out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name the GGUF file to write")
    inputs = {path for path in source.folder.iterdir() if path.suffix != ".gguf"}
    inputs |= {tensor.file for tensor in source.tensors.values()}
    if out.exists() and any(out.samefile(path) for path in inputs if path.exists()):
        raise InputError(f"{out} is a file of the checkpoint", hint="name another file to write")


def _check_tied(source: Source) -> None:
    """A stored head that is said to be tied must really hold the embedding, or there are two readings of the model."""
    matched, attached = source.matched, source.attached
    for name, other in (attached.twins if attached else {}).items():
        if not plan.same_values(source.tensors[name], other or matched.sources["token_embd.weight"][0]):
            raise BadCheckpoint(
                f"{name} should hold the same values as {other.name if other else 'the embedding'}, and does not",
                hint='set "tie_word_embeddings" in config.json to what the model was trained with',
            )
    for name in (name for name, reason in matched.dropped.items() if reason == plan.TIED):
        if not plan.same_values(source.tensors[name], matched.sources["token_embd.weight"][0]):
            raise BadCheckpoint(
                f"config.json says the head is tied to the embedding, but {name} holds other values",
                hint='set "tie_word_embeddings" in config.json to what the model was trained with',
            )
