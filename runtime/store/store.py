"""The models that are kept on this machine. Finding one opens no connection and takes no lock.

    <home>/models/<org>/<name>[@<revision>]/<TYPE>.json              the manifest: a model is here when this is
                                           /<name>-<TYPE>-<source>.gguf   what was built from the checkpoint
                                           /<GGUF file>.figures.json      what was measured of it
    <home>/folders/<folder>-<digest>/…                               the same, for checkpoint folders
    <home>/locks/<model>.lock                                        held while a model is built or removed

``home`` is ``INGLE_HOME``, or ``~/.local/share/ingle``. GGUF files of the hub stay in the Hugging Face cache; only
their manifest is here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...convert.errors import ChecksumMismatch, ModelNotFound, UnknownType
from ...convert.files import PARTIAL_SUFFIX, RESUMABLE, projector_beside
from ...convert.progress import Progress, silent
from . import manifest, places
from .cache import Cache
from .fingerprint import fingerprint
from .lock import locked
from .manifest import Entry, KeptFile, Source
from .names import FileName, FolderName, HubName, parse
from .selection import preferred

FIGURES_SUFFIX = ".figures.json"
"""What was measured of a model: see :mod:`.figures`."""
BUILD_WAIT_S = 3600.0
REMOVE_WAIT_S = 5.0
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did: the bytes it freed, and the files of others that it left where they are."""

    names: tuple[str, ...]
    freed_bytes: int
    left: tuple[Path, ...]


class Store:
    """The store below ``home``; another process may work in it at the same time."""

    def __init__(self, home: Path | None = None, *, wait_s: float = BUILD_WAIT_S) -> None:
        self.home = home or places.home()
        self.wait_s = wait_s

    def find(self, name: str) -> Entry:
        """The model of that name, if it is here and nothing about it has visibly changed.

        Raises:
            BadName: not a name. ModelNotFound: not here, or its checkpoint folder has changed since.
            ChecksumMismatch: a file has another size than it was kept with.
        """
        wanted = parse(name)
        if isinstance(wanted, FileName):
            return _file_entry(wanted)
        entry = self.get(wanted)
        if entry is None:
            raise ModelNotFound(f"{name} is not here", hint=f"run: ingle pull {name}")
        for file in entry.all_files:
            _require_size(entry, file)
        return entry

    def get(self, name: HubName | FolderName) -> Entry | None:
        """Like :meth:`find`, without a look at the files; None when it is not here."""
        entries = {entry.type: entry for entry in self._entries_in(self.folder(name))}
        if isinstance(name, FolderName) and name.path.is_dir():
            now = fingerprint(name.path)
            entries = {label: entry for label, entry in entries.items() if entry.source.version == now}
        if not entries:
            return None
        wanted = name.type or preferred(entries)
        return entries.get(wanted) or entries.get(_exact(wanted))

    def list(self) -> tuple[Entry, ...]:
        """All models that are here, by name.

        Raises:
            StorageError: a manifest is broken; it is named.
        """
        folders = [*self.home.glob("models/*/*"), *self.home.glob("folders/*")]
        entries = (entry for folder in folders for entry in self._entries_in(folder))
        return tuple(sorted(entries, key=lambda entry: entry.name))

    def remove(self, name: str, *, from_cache: bool = False) -> Removed:
        """Remove a model; without a type in its name, all types of it. Leftovers of an unfinished build go with it.

        What is in the Hugging Face cache (a GGUF that is used in place, the checkpoint that a model was built from)
        is left there, unless ``from_cache``.

        Raises:
            ModelNotFound: it is not here. StoreBusy: it is being built at this moment.
        """
        wanted = parse(name)
        if isinstance(wanted, FileName):
            raise ModelNotFound(f"{wanted} is not kept by ingle, only used", hint="remove the file yourself")
        with self.locked(wanted, wait_s=REMOVE_WAIT_S):
            there = self._entries_in(self.folder(wanted))
            entries = [entry for entry in there if wanted.type in (None, entry.type)]
            needed = {file.path for entry in there if entry not in entries for file in entry.all_files}
            leftover_bytes = self.sweep(wanted)
            if not entries and not leftover_bytes:
                raise ModelNotFound(f"{name} is not here", hint="run: ingle list")
            freed_bytes = leftover_bytes + sum(self._forget(wanted, entry, from_cache, needed) for entry in entries)
            _remove_if_empty(self.folder(wanted))
        left = sorted({path for entry in entries for path in _cached(entry)})
        return Removed(tuple(entry.name for entry in entries), freed_bytes, tuple(left))

    def verify(self, name: str, progress: Progress = silent) -> Entry:
        """Compute the SHA-256 of each file of a model again.

        Raises:
            ModelNotFound: it is not here. ChecksumMismatch: a file is not what it was; it is named.
        """
        entry = self.find(name)
        for file in entry.all_files:
            if not file.sha256:
                raise ModelNotFound(f"{file.path} is not kept by ingle: there is no checksum to compare it with")
            actual = sha256(file.path, progress)
            if actual != file.sha256:
                raise ChecksumMismatch(
                    f"{file.path} of {entry.name} is not what it was: SHA-256 {actual}, kept with {file.sha256}",
                    hint=f"run: ingle rm {entry.name}, then: ingle pull {entry.name}",
                )
        return entry

    def folder(self, name: HubName | FolderName) -> Path:
        """Where the manifests and built files of a model are."""
        return self.home / name.key

    def locked(
        self, name: HubName | FolderName, *, wait_s: float | None = None, progress: Progress = silent
    ) -> AbstractContextManager[None]:
        """Be the only one who builds or removes this model while the block runs.

        Raises:
            StoreBusy: somebody else has been for ``wait_s`` seconds.
        """
        places.create_private(self.home / "locks")
        path = self.home / "locks" / f"{quote(name.key, safe='@%')}.lock"
        return locked(path, str(name), wait_s=self.wait_s if wait_s is None else wait_s, progress=progress)

    def keep(self, name: HubName | FolderName, entry: Entry) -> Entry:
        """Record a finished model, and remove what it replaces. The caller holds the lock."""
        folder = self.folder(name)
        places.create_private(folder)
        for file in entry.all_files:
            if file.path.parent == folder:
                file.path.chmod(0o600)
        manifest.write(folder / f"{entry.type}.json", entry)
        self.sweep(name)
        return entry

    def sweep(self, name: HubName | FolderName, *, resumable: bool = True) -> int:
        """Remove what killed processes left: half-written files, and files that no manifest names. The caller holds
        the lock. ``resumable``: those, too, that can be taken up again. Returns the bytes freed."""
        folder = self.folder(name)
        kept = {file.path for entry in self._entries_in(folder) for file in entry.all_files}
        stray = [path for path in folder.glob("*.gguf") if path not in kept]
        partial = [
            path
            for path in folder.glob(f".*{PARTIAL_SUFFIX}")
            if resumable or not path.name.endswith(RESUMABLE + PARTIAL_SUFFIX)
        ]
        return sum(_unlink(path) for path in stray + partial)

    def _entries_in(self, folder: Path) -> tuple[Entry, ...]:
        entries = []
        for path in sorted(folder.glob("*.json")):
            if path.name.endswith(FIGURES_SUFFIX):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed by another process since
                entries.append(manifest.read(path))
        return tuple(entries)

    def _forget(self, name: HubName | FolderName, entry: Entry, from_cache: bool, needed: Set[Path]) -> int:
        """Remove what is an entry's alone; ``needed`` are the files of others, which may have one projector with it."""
        (self.folder(name) / f"{entry.type}.json").unlink(missing_ok=True)
        ours = self.folder(name)
        cached = [path for path in _cached(entry) if path not in needed] if from_cache else []
        freed_bytes = sum(_unlink_cached(path) for path in cached)
        (ours / f"{entry.path.name}{FIGURES_SUFFIX}").unlink(missing_ok=True)
        return freed_bytes + sum(_unlink(file.path) for file in entry.all_files if file.path.parent == ours)


def _exact(type_name: str) -> str:
    """The exact name of a quantization type that was written as an alias or with a dash."""
    from ...quantize import types

    try:
        return types.find(type_name).name
    except UnknownType:
        return type_name


def sha256(path: Path, progress: Progress = silent) -> str:
    """Hex digest of a file, reported as stage ``checksum``."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress("checksum", done, total)
    return digest.hexdigest()


def _file_entry(name: FileName) -> Entry:
    if not name.path.is_file():
        raise ModelNotFound(f"there is no file {name.path}", hint="check the path")
    found = next((file for file in _projectors_of(name.path) if file.is_file()), None)
    kept, projector = _own_file(name.path), None if found is None else _own_file(found)
    source = Source("file", str(name))
    return Entry(str(name), "", (kept,), source, reason="a file has the type it has", projector=projector)


def _projectors_of(model: Path) -> tuple[Path, ...]:
    """Where the vision part of a file may be: ``m-Q8_0.gguf`` may have its own, or that of ``m.gguf``."""
    from ...quantize.types import TYPES

    stem, dash, last = model.name.removesuffix(".gguf").rpartition("-")
    names = (model.name, f"{stem}.gguf") if dash and last.upper() in TYPES else (model.name,)
    return tuple(projector_beside(model.with_name(name)) for name in names)


def _own_file(path: Path) -> KeptFile:
    return KeptFile(path, path.stat().st_size, "")


def _require_size(entry: Entry, file: KeptFile) -> None:
    try:
        size_bytes = file.path.stat().st_size
    except OSError as error:
        raise ModelNotFound(
            f"{file.path} of {entry.name} is gone: {error.strerror}", hint=f"run: ingle pull {entry.name}"
        ) from error
    if size_bytes != file.size_bytes:
        raise ChecksumMismatch(
            f"{file.path} of {entry.name} has {size_bytes:,} bytes, and was kept with {file.size_bytes:,}",
            hint=f"run: ingle rm {entry.name}, then: ingle pull {entry.name}",
        )


def _unlink(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        size_bytes = path.lstat().st_size
        path.unlink()
        return size_bytes
    return 0


def _cached(entry: Entry) -> list[Path]:
    """The files in the Hugging Face cache that a model is, or was built from, as far as they are there."""
    if entry.source.kind != "hub":
        return []
    if not entry.built:
        return [file.path for file in entry.all_files if file.path.exists()]
    snapshot = Cache(places.hub_cache()).folder(entry.source.location) / "snapshots" / entry.source.version
    return [path for path in snapshot.rglob("*") if path.is_symlink()]


def _unlink_cached(path: Path) -> int:
    """Remove a file of the Hugging Face cache: the link in the snapshot, and the blob unless another one needs it."""
    blob = path.resolve()
    _unlink(path)
    snapshots = next((folder for folder in path.parents if folder.name == "snapshots"), None)
    if snapshots and any(other.resolve() == blob for other in snapshots.rglob("*") if other.is_symlink()):
        return 0
    return _unlink(blob)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


__all__ = ["Entry", "Removed", "Store", "sha256"]
