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

    @property
    def path(self) -> Path:
        return self.files[0].path

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Of the first file; a split model has one for each part, in ``files``."""
        return self.files[0].sha256


def write(path: Path, entry: Entry) -> None:
    """Record ``entry`` at ``path``, in one step. Files beside the manifest are recorded by name alone."""
    record = {"format": FORMAT, **asdict(entry)}
    record["files"] = [
        asdict(file) | {"path": file.path.name if file.path.parent == path.parent else str(file.path)}
        for file in entry.files
    ]
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
        files = tuple(KeptFile(path.parent / file.pop("path"), **file) for file in record.pop("files"))
        source = Source(**record.pop("source"))
        if not files:
            raise ValueError("no files")
        return Entry(files=files, source=source, **record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageError(
            f"the manifest {path} is broken: {error}", hint="remove that file, and pull the model again"
        ) from error
