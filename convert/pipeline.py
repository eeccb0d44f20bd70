"""From a checkpoint folder to a GGUF file: look, plan, write, prove, and only then give the file its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import gguf, plan
from .errors import BadCheckpoint, InputError
from .files import appearing, require_space
from .inspection import warnings
from .progress import Progress, silent
from .report import Item
from .source import Source
from .tensor import Arrive


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished conversion. ``dropped`` names each source tensor that was left out, with the reason."""

    path: Path
    size_bytes: int
    architecture: str
    dtype: str
    num_tensors: int
    num_parameters: int
    dropped: Mapping[str, str]
    warnings: tuple[Item, ...]


def convert(
    folder: Path,
    out: Path,
    dtype: str = "auto",
    *,
    prove: Callable[[Path], None] | None = None,
    arrive: Arrive | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Convert a checkpoint folder to a GGUF file.

    The file is complete, and ``prove`` (given its temporary path) has returned, before ``out`` exists; whatever goes
    wrong leaves nothing behind. The checkpoint is only read.

    Args:
        dtype: auto (that of the checkpoint), f32, f16, bf16 or q8_0. Vectors and norms are always f32.
        arrive: where of the weights only the headers are in ``folder``: waits for a file of weights, and maps it.

    Raises:
        BadCheckpoint, UnsupportedModel: what ``check`` reports as ``fail``, before anything is written; or a value
            that does not fit into the type.
        UnknownType: no such dtype.
        InputError: ``out`` is a folder or a file of the checkpoint.
        VerificationFailed: from ``prove``.
        DiskFull, StorageError: the file could not be written.
    """
    source = Source(folder, dtype, arrive)
    found = warnings(source)
    _check_out(source, out)
    _check_tied(source)
    require_space(out.parent, source.size_bytes)
    with appearing(out) as partial:
        gguf.write(partial, source.metadata | source.head_weights(), source.plans, progress)
        if prove is not None:
            prove(partial)
    return Conversion(
        path=out,
        size_bytes=out.stat().st_size,
        architecture=source.family.arch,
        dtype=source.dtype,
        num_tensors=len(source.plans),
        num_parameters=source.num_parameters,
        dropped=source.matched.dropped,
        warnings=found,
    )


def _check_out(source: Source, out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name the GGUF file to write")
    inputs = {path.resolve() for path in source.folder.iterdir() if path.suffix != ".gguf"}
    inputs |= {tensor.file.resolve() for tensor in source.tensors.values()}
    if out.resolve() in inputs:
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
