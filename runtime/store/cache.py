"""The standard Hugging Face cache, so that other programs find what we download, and we what they did.

<cache>/models--org--name/blobs/<etag>                   the bytes, named by their checksum
                         /snapshots/<commit>/<file>      links to blobs
                         /refs/<revision>                the commit a branch or tag stood for
<cache>/.locks/models--org--name/<etag>.lock
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...convert.errors import HubError, StorageError
from ...convert.files import appearing
from .names import HubName
from .repository import SHA1, RemoteFile, Repository

PARTIAL_SUFFIX = ".ingle.incomplete"
MAIN = "main"


@dataclass(frozen=True, slots=True)
class Cache:
    """The cache below ``root``."""

    root: Path

    def folder(self, repository: str) -> Path:
        return self.root / f"models--{repository.replace('/', '--')}"

    def blob(self, repository: str, file: RemoteFile) -> Path:
        return self.folder(repository) / "blobs" / file.etag

    def partial(self, repository: str, file: RemoteFile) -> Path:
        """Where the first bytes of a file wait for the rest."""
        return self.folder(repository) / "blobs" / f"{file.etag}{PARTIAL_SUFFIX}"

    def lock(self, repository: str, file: RemoteFile) -> Path:
        """The lock that the hub's own client takes for this file, too."""
        return self.root / ".locks" / self.folder(repository).name / f"{file.etag}.lock"

    def snapshot(self, repository: Repository) -> Path:
        return self.folder(repository.id) / "snapshots" / repository.commit

    def has(self, repository: Repository, file: RemoteFile) -> bool:
        """Whether a file is here, of its full size. Its checksum is not looked at."""
        blob = self.blob(repository.id, file)
        return blob.is_file() and blob.stat().st_size == file.size_bytes

    def missing_bytes(self, repository: Repository, file: RemoteFile) -> int:
        """How much of a file is still to be downloaded."""
        if self.blob(repository.id, file).exists():
            return 0
        partial = self.partial(repository.id, file)
        return file.size_bytes - (partial.stat().st_size if partial.exists() else 0)

    def link(self, repository: Repository, file: RemoteFile) -> Path:
        """Make ``file`` appear in its snapshot; returns its path there."""
        path = self.snapshot(repository) / file.name
        target = os.path.relpath(self.blob(repository.id, file), path.parent)
        if path.is_symlink() and str(path.readlink()) == target:
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".ingle-", dir=self.folder(repository.id)) as folder:
                link = Path(folder, "link")
                link.symlink_to(target)
                link.replace(path)
        except OSError as error:
            raise StorageError(f"cannot link {path} to {target}: {error.strerror}") from error
        return path

    def remember(self, repository: Repository, revision: str | None) -> None:
        """Note which commit a branch or tag stands for, so that it can be found offline."""
        revision = revision or MAIN
        ref = self.folder(repository.id) / "refs" / revision
        if revision == repository.commit or (ref.exists() and ref.read_text() == repository.commit):
            return
        with appearing(ref) as partial:
            partial.write_text(repository.commit)

    def repository(self, name: HubName) -> Repository:
        """The part of a repository that is here, as the hub would describe it. Looks at the disk only.

        Raises:
            HubError: nothing of it is here.
        """
        commit = self._commit(name)
        snapshot = self.folder(name.repository) / "snapshots" / commit
        paths = sorted(path for path in snapshot.rglob("*") if path.is_file()) if commit else []
        if not paths:
            raise HubError(
                f"{name} is not on this machine, and HF_HUB_OFFLINE forbids asking the hub",
                hint="unset HF_HUB_OFFLINE, or run: ingle list",
            )
        files = [_cached_file(path, str(path.relative_to(snapshot))) for path in paths]
        return Repository(name.repository, commit, {file.name: file for file in files})

    def _commit(self, name: HubName) -> str:
        revision = name.revision or MAIN
        ref = self.folder(name.repository) / "refs" / revision
        if ref.is_file():
            return ref.read_text().strip()
        return revision if SHA1.fullmatch(revision) else ""


def _cached_file(path: Path, name: str) -> RemoteFile:
    if not path.is_symlink():
        raise HubError(
            f"{path} is no link to a blob, so its checksum is unknown",
            hint="this cache was written without symbolic links; load the file by its path instead",
        )
    return RemoteFile(name, path.stat().st_size, path.readlink().name)
