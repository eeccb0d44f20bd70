"""Bring files of a repository into the Hugging Face cache: space first, then each of them checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...convert.errors import HubError
from ...convert.files import require_space
from ...convert.progress import Progress
from . import places
from .cache import Cache
from .fetch import Body, Patience, fetch, read_span
from .hub import Hub
from .names import HubName
from .repository import RemoteFile, Repository

STAGE = "download"

Arrived = Callable[[RemoteFile, Path], None]


@dataclass(frozen=True, slots=True)
class Library:
    """The hub and the cache in front of it. Without a hub (offline) the cache is all there is."""

    cache: Cache
    hub: Hub | None

    @classmethod
    def from_environment(cls) -> Library:
        return cls(Cache(places.hub_cache()), None if places.is_offline() else Hub.from_environment())

    def repository(self, name: HubName) -> Repository:
        """What a repository holds: by the hub's word, or offline what is here of it.

        Raises:
            HubError: the hub does not give it, or (offline) nothing of it is here.
        """
        return self.hub.repository(name) if self.hub else self.cache.repository(name)

    def missing_bytes(self, repository: Repository, files: Sequence[RemoteFile]) -> int:
        """How much is still to be downloaded of ``files``."""
        return sum(self.cache.missing_bytes(repository, file) for file in files)

    def download(
        self,
        repository: Repository,
        files: Sequence[RemoteFile],
        progress: Progress,
        arrived: Arrived = lambda file, path: None,
    ) -> list[Path]:
        """Make ``files`` stand in the cache, checked against their checksums; returns their paths in the snapshot.

        ``arrived`` is told of each as soon as it does.

        Raises:
            DiskFull, ChecksumMismatch, HubError, StoreBusy: see :func:`.fetch.fetch`.
        """
        require_space(self.cache.root, self.missing_bytes(repository, files))
        counter = _Counter(progress, sum(file.size_bytes for file in files))
        paths = []
        for file in files:
            opener = partial(self._open, repository, file)
            paths.append(fetch(self.cache, repository, file, opener, patience=self._patience(), count=counter))
            arrived(file, paths[-1])
        return paths

    def read_span(self, repository: Repository, file: RemoteFile, start: int, stop: int) -> bytes:
        """Some bytes of a file of the hub: neither checked nor kept, see :func:`.fetch.read_span`.

        Raises:
            HubError: the hub does not give them, or this is offline.
        """
        return read_span(lambda offset: self._open(repository, file, offset, stop), start, stop, self._patience())

    def _patience(self) -> Patience:
        return self.hub.patience() if self.hub else Patience()

    @contextlib.contextmanager
    def _open(self, repository: Repository, file: RemoteFile, offset: int, stop: int | None = None) -> Iterator[Body]:
        if self.hub is None:
            raise HubError(
                f"{file.name} of {repository.id} is here only in part, and HF_HUB_OFFLINE forbids asking the hub",
                hint="unset HF_HUB_OFFLINE",
            )
        with self.hub.body(repository, file, offset, stop) as body:
            yield body


class _Counter:
    """Bytes of one file after another, as one progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, num_bytes: int) -> None:
        self._done += num_bytes
        self._progress(STAGE, self._done, self._total)
