"""The record of one kept model: a small JSON file beside it. A model is kept when its manifest is there, not before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...convert.errors import StorageError
from ...convert.files import appearing

FORMAT = 1
SourceKind = Literal["hub", "folder", "file"]


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One GGUF file. ``sha256`` is empty only for a file that was named by its path and never kept."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model came from: a hub repository at a commit, or a folder with a fingerprint, or a file."""

    kind: SourceKind
    location: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that is here.

    name: as :func:`.names.parse` reads it, type included.
    files: the GGUF, in order of its parts when it is split; llama.cpp is given the first.
    projector: the vision part, of a model that has one.
    built: converted by us; otherwise the files belong to the Hugging Face cache, or to somebody else.
    reason: why it has this type.
    proof: what the verification found, for a model that we converted.
    created: when it was kept, ISO 8601 UTC.
    """

    name: str
    type: str
    files: tuple[KeptFile, ...]
    source: Source
    built: bool = False
    reason: str = ""
    proof: Mapping[str, Any] | None = None
    ingle: str = ""
    created: str = ""
    projector: KeptFile | None = None

    @property
    def path(self) -> Path:
        return self.files[0].path

    @property
    def all_files(self) -> tuple[KeptFile, ...]:
        return self.files if self.projector is None else (*self.files, self.projector)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.all_files)

    @property
    def sha256(self) -> str:
        """Of the first file; a split model has one for each part, in ``files``."""
        return self.files[0].sha256


def write(path: Path, entry: Entry) -> None:
    """Record ``entry`` at ``path``, in one step. Files beside the manifest are recorded by name alone."""
    record = {"format": FORMAT, **asdict(entry)}
    record["files"] = [_record(file, path.parent) for file in entry.files]
    record["projector"] = entry.projector and _record(entry.projector, path.parent)
    with appearing(path) as partial:
        partial.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    path.chmod(0o600)


def read(path: Path) -> Entry:
    """Read a record.

    Raises:
        StorageError: it is broken. FileNotFoundError: it is not there.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("format") != FORMAT:
            raise ValueError("written by another version of ingle")
        files = tuple(_kept(file, path.parent) for file in record.pop("files"))
        projector = record.pop("projector", None)
        source = Source(**record.pop("source"))
        if not files:
            raise ValueError("no files")
        kept = None if projector is None else _kept(projector, path.parent)
        return Entry(files=files, source=source, projector=kept, **record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"the manifest {path} is broken: {error}", hint="remove that file, and pull the model again"
        ) from error


def _record(file: KeptFile, folder: Path) -> dict[str, Any]:
    return asdict(file) | {"path": file.path.name if file.path.parent == folder else str(file.path)}


def _kept(record: dict[str, Any], folder: Path) -> KeptFile:
    return KeptFile(folder / record.pop("path"), **record)
