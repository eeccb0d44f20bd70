"""Weights on their way: fetched in the background, while what has arrived of them is converted."""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ...convert.errors import ChecksumMismatch
from ...convert.progress import Progress
from ...convert.safetensors import LENGTH_BYTES
from ...convert.tensor import map_file
from .cache import Cache
from .checkpoint import Begun, Checkpoint, begin, finish, meant
from .download import Library
from .preview import lay_out, temporary_folder
from .repository import SHA256, RemoteFile

PARTING_S = 1.0
"""How long a download that nobody wants any more is waited for; it ends with the process, and can be taken up again."""


class _NotWanted(BaseException):
    """Ends the thread between two pieces of a file."""


class Arrival:
    """The weights of a checkpoint of the hub, fetched in order by a thread that starts when the first is asked for.

    ``folder`` has the configs and at least the headers of the weights. Headers are fetched before the rest and cannot
    be checked by themselves; once a file is whole and has its checksum, its header must be the one that was planned on.
    """

    def __init__(self, library: Library, begun: Begun, folder: Path, revision: str | None, progress: Progress) -> None:
        self.folder = folder
        self._library, self._begun, self._revision, self._progress = library, begun, revision, progress
        self._arrived: dict[str, Path] = {}
        self._mapped: dict[str, mmap.mmap] = {}
        self._failure: BaseException | None = None
        self._wanted = True
        self._whole = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._fetch, name="ingle-download", daemon=True)

    def map(self, file: Path) -> mmap.mmap:
        """The bytes of a file of ``folder``, waited for: an :data:`ingle.convert.tensor.Arrive`.

        Raises:
            HubError, ChecksumMismatch, DiskFull, StoreBusy: it will not arrive.
        """
        name = str(file.relative_to(self.folder))
        if name not in self._mapped:
            self._wait_for(lambda: name in self._arrived)
            self._mapped[name] = _same_header(file, self._arrived[name])
        return self._mapped[name]

    def complete(self) -> Path:
        """Wait for all of it; returns its folder in the cache. Raises as :meth:`map`."""
        self._wait_for(lambda: self._whole)
        return self._begun.folder

    def after(self, progress: Progress) -> Progress:
        """A progress that is silent as long as the download shows its own."""

        def when_whole(stage: str, done: int, total: int) -> None:
            if self._whole:
                progress(stage, done, total)

        return when_whole

    def stop(self) -> None:
        """What has not arrived is not wanted any more."""
        self._wanted = False
        if self._thread.is_alive():
            self._thread.join(PARTING_S)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            if self._thread.ident is None:
                self._thread.start()
            self._changed.wait_for(lambda: condition() or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    def _fetch(self) -> None:
        try:
            self._library.download(self._begun.repository, self._begun.weights, self._tell, self._note)
            self._library.cache.remember(self._begun.repository, self._revision)
        except BaseException as error:  # raised where the weights are waited for
            self._failure = error
        else:
            self._whole = True
        with self._changed:
            self._changed.notify_all()

    def _tell(self, stage: str, done: int, total: int) -> None:
        if not self._wanted:
            raise _NotWanted
        self._progress(stage, done, total)

    def _note(self, file: RemoteFile, path: Path) -> None:
        with self._changed:
            self._arrived[file.name] = path
            self._changed.notify_all()


@contextlib.contextmanager
def checkpoint_at(text: str, progress: Progress, library: Library | None = None) -> Iterator[Checkpoint]:
    """The checkpoint that ``text`` names: a folder, or one of the hub, on its way while the block runs.

    Raises:
        BadName: it names none. BadCheckpoint: the repository holds none. HubError, ChecksumMismatch, StorageError.
    """
    name = meant(text)
    if isinstance(name, Path):
        yield Checkpoint.of_folder(name)
        return
    library = library or Library.from_environment()
    begun = begin(library, library.repository(name), progress)
    with on_its_way(library, begun, name.revision, progress) as checkpoint:
        yield checkpoint


@contextlib.contextmanager
def on_its_way(library: Library, begun: Begun, revision: str | None, progress: Progress) -> Iterator[Checkpoint]:
    """The checkpoint that was begun. A single file of weights is fetched before the block runs: its checksum needs all.

    Raises:
        HubError, ChecksumMismatch, StorageError: headers, or such weights, could not be had.
    """
    if len(begun.weights) == 1 or not begun.has_headers:
        yield Checkpoint.of_folder(finish(library, begun, revision, progress))
        return
    with temporary_folder() as parent:
        folder = Cache(parent).snapshot(begun.repository)
        lay_out(library, begun, folder, progress)
        arrival = Arrival(library, begun, folder, revision, progress)
        try:
            known = {file.name: file.etag for file in begun.weights if SHA256.fullmatch(file.etag)}
            commit = begun.repository.commit
            yield Checkpoint(folder, arrival.map, arrival.complete, arrival.after, commit, known)
        finally:
            arrival.stop()


def _same_header(outline: Path, arrived: Path) -> mmap.mmap:
    planned, _ = map_file(outline, LENGTH_BYTES)
    whole, _ = map_file(arrived, LENGTH_BYTES)
    end = LENGTH_BYTES + int.from_bytes(planned[:LENGTH_BYTES], "little")
    if whole[:end] != planned[:end]:
        raise ChecksumMismatch(
            f"the header of {outline.name} that the hub gave first is not that of the file",
            hint="run it again, and distrust the hub or the proxy if it happens twice",
        )
    return whole
