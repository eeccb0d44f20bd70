"""A checkpoint folder, wherever it is: on this machine, or first to be fetched from the hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...convert.errors import BadName
from ...convert.progress import Progress
from ...convert.tensor import Arrive
from .download import Library
from .names import FileName, FolderName, HubName, parse
from .repository import RemoteFile, Repository
from .selection import WEIGHTS_SUFFIX, index_name, small_files, weight_files


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint to convert. What is planned comes from ``folder``.

    arrive: where that has only the headers of the weights: waits for a file of them (None: all is there).
    complete: waits for the rest; returns the folder that has all of it.
    after: a progress that is silent until then, because the download has its own.
    identity: the commit, where not all of its files are here to be looked at.
    known: SHA-256 of files, by name, that are checked when they arrive.
    """

    folder: Path
    arrive: Arrive | None
    complete: Callable[[], Path]
    after: Callable[[Progress], Progress]
    identity: str = ""
    known: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> Checkpoint:
        """One that is here."""
        return cls(folder, None, lambda: folder, lambda progress: progress)


@dataclass(frozen=True, slots=True)
class Begun:
    """A checkpoint of the hub whose configs are in ``folder``; its ``weights`` may still be missing."""

    repository: Repository
    folder: Path
    weights: tuple[RemoteFile, ...]

    @property
    def weights_bytes(self) -> int:
        return sum(file.size_bytes for file in self.weights)

    @property
    def has_headers(self) -> bool:
        """Whether the first bytes of each file say what is in it."""
        return all(file.name.endswith(WEIGHTS_SUFFIX) for file in self.weights)


def begin(library: Library, repository: Repository, progress: Progress) -> Begun:
    """Fetch configs, tokenizer and templates: all that is needed to judge a checkpoint before its weights come.

    Raises:
        BadCheckpoint: the repository holds no checkpoint. HubError, ChecksumMismatch, DiskFull: the download failed.
    """
    library.download(repository, small_files(repository), progress)
    folder = library.cache.snapshot(repository)
    index = index_name(repository)
    weights = weight_files(repository, (folder / index).read_text(encoding="utf-8") if index else None)
    return Begun(repository, folder, tuple(weights))


def finish(library: Library, begun: Begun, revision: str | None, progress: Progress) -> Path:
    """Fetch the weights; returns the folder, now complete.

    Raises:
        HubError, ChecksumMismatch, DiskFull: the download failed; what arrived is kept, to go on from there.
    """
    library.download(begun.repository, begun.weights, progress)
    library.cache.remember(begun.repository, revision)
    return begun.folder


def meant(text: str) -> Path | HubName:
    """The folder or the repository that ``text`` names. A folder that exists is meant before a repository of the hub.

    Raises:
        BadName: it names neither.
    """
    if Path(text).is_dir():
        return Path(text)
    name = parse(text)
    if isinstance(name, FolderName):
        return name.path
    if isinstance(name, FileName):
        raise BadName(f"{text} names a GGUF file, not a checkpoint", hint="give a checkpoint folder or org/name")
    if name.type:
        raise BadName(f"{text} asks for a type; a checkpoint has none", hint=f"write {name.repository}")
    return name
