"""From a checkpoint folder to a kept model: convert, prove, quantize, record.

A conversion that has to be quantized waits as a whole file in the work folder, named by its source, so that a killed
build goes on from there. It is removed once the model is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...convert.errors import IngleError
from ...convert.files import appearing, projector_beside
from ...convert.progress import Progress
from . import places
from .checkpoint import Checkpoint
from .manifest import Entry, KeptFile, Source
from .names import FolderName, HubName
from .store import Store, sha256

DIRECT_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""Types that the conversion writes itself, without a file in between."""

Proof = Mapping[str, Any]


def _inspect(folder: Path) -> None:
    from ...convert.inspection import sound
    from ...convert.source import Source as Plan

    plan = Plan(folder, "auto")
    _ = plan.family, plan.config, plan.vocabulary  # each raises what is wrong with it
    if plan.projection is not None:
        list(sound(plan.projection.limits()))


def _convert(checkpoint: Checkpoint, out: Path, dtype: str, prove: Callable[[Path], Proof], progress: Progress) -> None:
    from ...convert import convert

    convert(checkpoint.folder, out, dtype, prove=prove, arrive=checkpoint.arrive, progress=checkpoint.after(progress))


def _prove(folder: Path, gguf: Path, progress: Progress) -> Proof:
    from ..proof import prove

    return prove(folder, gguf, progress)


def _quantize(source: Path, out: Path, type_name: str, progress: Progress) -> None:
    from ...quantize import quantize

    quantize(source, out, type_name, progress=progress)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the stages are done with. Each imports its floor when it is called.

    ``inspect`` raises what is wrong with a checkpoint, by its configs and tokenizer alone: before its weights are
    fetched.
    """

    convert: Callable[[Checkpoint, Path, str, Callable[[Path], Proof], Progress], None] = _convert
    prove: Callable[[Path, Path, Progress], Proof] = _prove
    quantize: Callable[[Path, Path, str, Progress], None] = _quantize
    inspect: Callable[[Path], None] = _inspect


@dataclass(frozen=True, slots=True)
class Job:
    """One model to build: ``name`` has no type yet, ``type`` is a quantization type's exact name."""

    name: HubName | FolderName
    checkpoint: Checkpoint
    source: Source
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Workshop:
    """Builds jobs into ``store``; the caller holds the model's lock."""

    store: Store
    tools: Tools
    progress: Progress

    def build(self, job: Job) -> Entry:
        """Do all stages that are not done yet.

        Raises: what converting, verifying and quantizing raise. The store stays as it was.
        """
        out = self.store.folder(job.name) / f"{job.name.name}-{job.type}-{job.source.version[:8]}.gguf"
        if job.type in DIRECT_TYPES:
            proof = self._convert(job, out, job.type.lower())
        else:
            converted = self.converted(job.name, job.source)
            proof = self._converted_proof(job, converted)
            places.create_private(out.parent)
            _link_projector(converted, out)
            self.tools.quantize(converted, out, job.type, self.progress)
        entry = self.store.keep(job.name, self._entry(job, out, proof))
        shutil.rmtree(self.store.work(job.name), ignore_errors=True)
        return entry

    def converted(self, name: HubName | FolderName, source: Source) -> Path:
        """Where the conversion waits for its quantization."""
        return self.store.work(name) / f"{source.version[:16]}.gguf"

    def _converted_proof(self, job: Job, converted: Path) -> Proof:
        if converted.exists():
            proof: Proof = json.loads(_proof_path(converted).read_text(encoding="utf-8"))
            return proof
        shutil.rmtree(converted.parent, ignore_errors=True)  # of another source
        return self._convert(job, converted, "auto")

    def _convert(self, job: Job, out: Path, dtype: str) -> Proof:
        """The proof is written down before the file has its name: where there is a file, there is its proof."""
        found: list[Proof] = []

        def prove(partial: Path) -> Proof:
            found.append(self.tools.prove(job.checkpoint.complete(), partial, self.progress))
            if out.parent == self.store.work(job.name):
                _write_private(_proof_path(out), json.dumps(dict(found[0])))
            return found[0]

        places.create_private(out.parent)
        self.tools.convert(job.checkpoint, out, dtype, prove, self.progress)
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


def _link_projector(converted: Path, out: Path) -> None:
    """Give the vision part, which is not quantized, its second name; the first goes with the work folder."""
    source = projector_beside(converted)
    if source.exists():
        with appearing(projector_beside(out)) as partial:
            partial.unlink()
            partial.hardlink_to(source)


def version() -> str:
    """The version of ingle that wrote an entry."""
    from importlib import metadata

    try:
        return metadata.version("ingle")
    except metadata.PackageNotFoundError:
        return "unknown"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_private(path: Path, text: str) -> None:
    with appearing(path) as partial:
        partial.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def _proof_path(converted: Path) -> Path:
    return converted.with_suffix(".proof.json")
