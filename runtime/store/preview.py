"""A checkpoint of the hub without its weights: enough to judge it, gone when it has been judged.

The configs are real, and so is the header of each safetensors file; behind the header lies a hole as large as the
weights. Headers read this way are checked against nothing, so no more than a verdict may stand on them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...convert.errors import HubError, StorageError
from ...convert.files import appearing, require_space
from ...convert.progress import Progress, silent
from .cache import Cache
from .checkpoint import Begun, begin, meant
from .download import Library
from .repository import RemoteFile, Repository
from .selection import small_files

STAGE = "headers"
LENGTH_BYTES = 8
MOST_WEIGHTS_BYTES = 1 << 44
"""More than any checkpoint has, and what a file system and an address space can still hold as holes."""


@contextlib.contextmanager
def checkpoint_preview(text: str, progress: Progress = silent, library: Library | None = None) -> Iterator[Path]:
    """The folder that ``text`` names, or of a repository of the hub a preview, which is removed with the block.

    Raises:
        BadName, BadCheckpoint: it names no checkpoint. HubError, ChecksumMismatch, StorageError: what is needed of it
            could not be had.
    """
    name = meant(text)
    if isinstance(name, Path):
        yield name
        return
    library = library or Library.from_environment()
    begun = begin(library, library.repository(name), progress)
    with temporary_folder() as parent:
        folder = Cache(parent).snapshot(begun.repository)  # a model has its name from where it lies in a cache
        lay_out(library, begun, folder, progress)
        yield folder


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed with the block."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="ingle-")
    except OSError as error:
        raise StorageError(f"cannot make a temporary folder: {error}", hint="set TMPDIR") from error
    with folder as path:
        yield Path(path)


def lay_out(library: Library, begun: Begun, folder: Path, progress: Progress) -> None:
    """Fill ``folder``: links to what is in the cache, outlines of the weights that are not."""
    if begun.weights_bytes > MOST_WEIGHTS_BYTES:
        raise HubError(
            f"the hub gives the weights of {begun.repository.id} a size of {begun.weights_bytes:,} bytes",
            hint="no checkpoint is as large as that: check the name and HF_ENDPOINT",
        )
    for file in small_files(begun.repository):
        _link(folder / file.name, begun.folder / file.name)
    for number, file in enumerate(begun.weights, 1):
        if library.cache.has(begun.repository, file):
            _link(folder / file.name, library.cache.blob(begun.repository.id, file))
        elif not begun.has_headers:
            raise HubError(
                f"{file.name} of {begun.repository.id} says what is in it at its end, and is not here yet",
                hint=f"without --check it is fetched, and judged then: ingle convert {begun.repository.id}",
            )
        else:
            _outline(folder / file.name, file.size_bytes, _header(library, begun.repository, file))
        progress(STAGE, number, len(begun.weights))


def _link(path: Path, target: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target.resolve())
    except OSError as error:
        raise StorageError(f"cannot link {path} to {target}: {error.strerror}") from error


def _header(library: Library, repository: Repository, file: RemoteFile) -> bytes:
    """The first bytes of a safetensors file, its header included.

    A length that no reader accepts is returned alone: the reader will say what is wrong with it.
    """
    from ...convert.safetensors import MAX_HEADER_BYTES

    start = library.read_span(repository, file, 0, min(LENGTH_BYTES, file.size_bytes))
    length = int.from_bytes(start, "little")
    if length > min(file.size_bytes - LENGTH_BYTES, MAX_HEADER_BYTES):
        return start
    return start + library.read_span(repository, file, LENGTH_BYTES, LENGTH_BYTES + length)


def _outline(path: Path, size_bytes: int, header: bytes) -> None:
    """A file of ``size_bytes`` that begins with ``header``; the rest is a hole, which takes no space."""
    require_space(path.parent, len(header))
    with appearing(path) as partial:
        partial.write_bytes(header)
        os.truncate(partial, size_bytes)
