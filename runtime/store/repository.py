"""What a repository of the hub holds. Everything here came from a server, so it is checked before anyone uses it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...convert.errors import HubError

SHA1 = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_FILES = 100_000
LONGEST_PATH = 1024
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_FORBIDDEN_PARTS = {"", ".", ".."}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository.

    name: its path inside the repository, with slashes; never leaves the folder it is joined to.
    etag: the SHA-256 of a large (LFS) file, the git blob SHA-1 of a small one. The hub's cache calls the file so.
    """

    name: str
    size_bytes: int
    etag: str

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if _FORBIDDEN.search(self.name) or _FORBIDDEN_PARTS & set(parts) or len(self.name) > LONGEST_PATH:
            raise HubError(f"the hub names a file {self.name!r}, which is not a path inside a repository")
        if self.size_bytes < 0:
            raise HubError(f"the hub gives {self.name} a size of {self.size_bytes}")
        if not SHA256.fullmatch(self.etag) and not SHA1.fullmatch(self.etag):
            raise HubError(f"the hub gives {self.name} the checksum {self.etag!r}, which is neither SHA-256 nor SHA-1")

    def hasher(self) -> hashlib._Hash:
        """A fresh hash whose hex digest is ``etag`` once it has seen the whole file."""
        if len(self.etag) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\x00" % self.size_bytes, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    id: str
    commit: str
    files: Mapping[str, RemoteFile]

    def __post_init__(self) -> None:
        if not SHA1.fullmatch(self.commit):
            raise HubError(f"the hub gives {self.id} the commit {self.commit!r}, which is not one")


def from_reply(repository: str, reply: Any) -> Repository:
    """Read the hub's description of a model (``/api/models/…?blobs=true``).

    Raises:
        HubError: a field is missing, of a wrong kind, or hostile.
    """
    try:
        siblings = reply["siblings"]
        commit = str(reply["sha"])
        if len(siblings) > MOST_FILES:
            raise HubError(f"{repository} lists {len(siblings):,} files; the limit is {MOST_FILES:,}")
        files = [_file(sibling) for sibling in siblings]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HubError(f"the hub's description of {repository} is not understood: {error!r}") from error
    return Repository(repository, commit, {file.name: file for file in files})


def _file(sibling: Mapping[str, Any]) -> RemoteFile:
    large = sibling.get("lfs")
    name, size_bytes = sibling["rfilename"], sibling["size"]
    etag = large["sha256"] if large else sibling["blobId"]
    if not (isinstance(name, str) and type(size_bytes) is int and isinstance(etag, str)):
        raise HubError(f"the hub describes a file as {name!r} of {size_bytes!r} bytes with the checksum {etag!r}")
    return RemoteFile(name, size_bytes, etag)
