"""From a checkpoint folder to a kept model: convert and quantize in one pass, prove, record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...convert.errors import IngleError
from ...convert.files import projector_beside
from ...convert.progress import Progress, Turns
from . import places
from .checkpoint import Checkpoint
from .manifest import Entry, KeptFile, Source
from .names import FolderName, HubName
from .store import Store, sha256

if TYPE_CHECKING:
    from ...convert.gguf import Value
    from ...convert.origin import Origin
    from ...convert.vocabulary import Vocabulary
    from ...quantize import Imatrix

PLAIN_TYPES = ("F32", "F16", "BF16")
"""Types that nothing is quantized to."""

Proof = Mapping[str, Any]
Plain = Callable[[], AbstractContextManager[Path]]
Prove = Callable[[Path, Plain | None], Proof]


@dataclass(frozen=True, slots=True)
class Importance:
    """The importance matrix that a build is to use.

    label: tells it from others, hexadecimal. load: gives it; where ``needs_model``, it is collected with the model of a
    file that was not quantized. made: whether a file of that metadata was quantized with it.
    """

    label: str
    needs_model: bool
    load: Callable[[Path | None], Imatrix]
    made: Callable[[Mapping[str, Value]], bool]


def _inspect(folder: Path) -> None:
    from ...convert.inspection import sound
    from ...convert.source import Source as Plan

    plan = Plan(folder, "auto")
    _ = plan.family, plan.config, plan.vocabulary  # each raises what is wrong with it
    if plan.projection is not None:
        list(sound(plan.projection.limits()))


def _convert(checkpoint: Checkpoint, out: Path, dtype: str, prove: Prove, progress: Progress) -> None:
    from ...convert import convert
    from ..settle import settle

    convert(
        checkpoint.folder,
        out,
        dtype,
        settle=lambda found: settle(checkpoint.folder, found, progress),
        prove=lambda partial: prove(partial, None),
        arrive=checkpoint.arrive,
        origin=origin(checkpoint),
        progress=checkpoint.after(progress),
    )


def _quantize(
    checkpoint: Checkpoint, out: Path, type_name: str, prove: Prove, progress: Progress, importance: Importance | None
) -> None:
    from ...quantize import Choices, onepass
    from ..settle import settle

    settled = Settled(checkpoint.folder, progress, settle)
    onepass.convert(
        checkpoint.folder,
        out,
        type_name,
        choices=Choices(imatrix=_matrix(checkpoint, out, settled, progress, importance)),
        settle=settled,
        prove=prove,
        arrive=checkpoint.arrive,
        identity=checkpoint.identity,
        origin=origin(checkpoint),
        progress=checkpoint.after(progress),
    )


class Settled:
    """What a trial decides about a vocabulary, tried once."""

    def __init__(
        self, folder: Path, progress: Progress, settle: Callable[[Path, Vocabulary, Progress], Vocabulary]
    ) -> None:
        self._folder, self._progress, self._settle = folder, progress, settle
        self._vocabulary: Vocabulary | None = None

    def __call__(self, found: Vocabulary) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = self._settle(self._folder, found, self._progress)
        return self._vocabulary


def _matrix(
    checkpoint: Checkpoint, out: Path, settled: Settled, progress: Progress, importance: Importance | None
) -> Imatrix | None:
    if importance is None or not importance.needs_model:
        return importance.load(None) if importance else None
    with plainly(checkpoint, out, settled, progress) as model:
        return importance.load(model)


@contextmanager
def plainly(
    checkpoint: Checkpoint, out: Path, settled: Settled, progress: Progress, dtype: str = "auto", *, clip: bool = False
) -> Iterator[Path]:
    """The model as it is, to be run: beside ``out``, while the block runs."""
    from ...convert import convert

    model = out.with_name(f".{out.name}.converted")
    try:
        convert(
            checkpoint.folder,
            model,
            dtype,
            clip=clip,
            settle=settled,
            arrive=checkpoint.arrive,
            progress=checkpoint.after(progress),
        )
        yield model
    finally:
        model.unlink(missing_ok=True)
        projector_beside(model).unlink(missing_ok=True)


def _prove(folder: Path, gguf: Path, progress: Progress, plain: Plain | None) -> Proof:
    from ..proof import prove

    return prove(folder, gguf, progress, plain=plain)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages are done with. Each imports its floor when it is called.

    ``inspect`` raises what is wrong with a checkpoint, by its configs and tokenizer alone: before its weights are
    fetched.
    """

    convert: Callable[[Checkpoint, Path, str, Prove, Progress], None] = _convert
    prove: Callable[[Path, Path, Progress, Plain | None], Proof] = _prove
    quantize: Callable[[Checkpoint, Path, str, Prove, Progress, Importance | None], None] = _quantize
    inspect: Callable[[Path], None] = _inspect


@dataclass(frozen=True, slots=True)
class Job:
    """One model to build: ``name`` has no type yet, ``type`` is a quantization type's exact name."""

    name: HubName | FolderName
    checkpoint: Checkpoint
    source: Source
    type: str
    reason: str
    importance: Importance | None = None


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds jobs into ``store``; the caller holds the model's lock."""

    store: Store
    tools: Tools
    progress: Progress

    def build(self, job: Job) -> Entry:
        """Do all stages. What a killed build had quantized is found again.

        Raises: what converting, quantizing and verifying raise. The store stays as it was.
        """
        matrix = f"-{job.importance.label[:8]}" if job.importance else ""
        out = self.store.folder(job.name) / f"{job.name.name}-{job.type}-{job.source.version[:8]}{matrix}.gguf"
        return self.store.keep(job.name, self._entry(job, out, self._made(job, out)))

    def _made(self, job: Job, out: Path) -> Proof:
        """Make the file; returns what was proven of it before it had its name."""
        found: list[Proof] = []

        turns = Turns(self.progress)

        def prove(partial: Path, plain: Plain | None) -> Proof:
            shown = turns.second if plain else self.progress
            found.append(self.tools.prove(job.checkpoint.complete(), partial, shown, plain))
            return found[0]

        places.create_private(out.parent)
        if job.type in PLAIN_TYPES:
            self.tools.convert(job.checkpoint, out, job.type.lower(), prove, self.progress)
        else:
            self.tools.quantize(job.checkpoint, out, job.type, prove, turns.first, job.importance)
        out.chmod(0o600)
        if not found:
            raise IngleError(f"{job.checkpoint.folder} was converted without a proof")
        return found[0]

    def _entry(self, job: Job, out: Path, proof: Proof) -> Entry:
        name, beside = str(job.name.typed(job.type)), projector_beside(out)
        projector = self._kept(beside) if beside.exists() else None
        files = (self._kept(out),)
        return Entry(name, job.type, files, job.source, True, job.reason, proof, version(), now(), projector)

    def _kept(self, path: Path) -> KeptFile:
        return KeptFile(path, path.stat().st_size, sha256(path, self.progress))


def origin(checkpoint: Checkpoint) -> Origin:
    """What a file of ours says about its making."""
    from ...convert.origin import Origin

    return Origin(version(), checkpoint.known)


def version() -> str:
    """The version of ingle that wrote an entry."""
    from importlib import metadata

    try:
        return metadata.version("ingle")
    except metadata.PackageNotFoundError:
        return "unknown"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
