"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import DiskFull, StorageError

PARTIAL_SUFFIX = ".partial"
RESUMABLE = ".resumable"
"""Before the suffix of a partial file that can be taken up again."""
PROJECTOR_SUFFIX = "-mmproj"


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes ``target`` when the block ends well, and vanishes otherwise.

    The bytes are on the disk before the name is: fsync file, rename, fsync folder. A process killed inside the
    block leaves one ``*.partial`` file, which the next writer of the same target removes (:func:`sweep`).

    Raises:
        StorageError: the folder cannot be written. DiskFull: no space was left.
    """
    with _partial(target) as partial:
        yield partial
        _keep(partial, target)


@contextlib.contextmanager
def continuing(target: Path, key: str) -> Iterator[Path]:
    """:func:`appearing`, for long work: what a killed process left under the same ``key`` is yielded again as it is.

    key: hexadecimal, of all that decides the bytes. Where a living process is at it, the path is a fresh one. The
    block has to make the file what it is to be, for it may find more in it than that.
    """
    with _partial(target, key) as partial:
        yield partial
        _keep(partial, target)


@contextlib.contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that vanishes when the block ends, as that of :func:`appearing` does."""
    with _partial(target) as partial:
        yield partial


@contextlib.contextmanager
def _partial(target: Path, key: str = "") -> Iterator[Path]:
    """A locked file beside ``target``, removed with the block unless it has got another name by then."""
    # Its name is known before it is there, so that an interruption at any moment finds it.
    partial = _named(target, secrets.token_hex(8))
    handle: int | None = None
    try:
        if key and (found := _taken_up(target, key)):
            partial, handle = found
        else:
            handle = _create(partial, target, os.O_EXCL)
            _lock(handle)
        yield partial
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space left while writing {target}", hint="free some space and run it again") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it has its name, or was never there; the next writer removes what is left
            partial.unlink()
        if handle is not None:
            os.close(handle)


def _taken_up(target: Path, key: str) -> tuple[Path, int] | None:
    """The partial file of that key, locked, as a killed process left it or new; None where a living one has it."""
    partial = _named(target, key + RESUMABLE)
    handle = _create(partial, target, 0)
    try:
        _lock(handle)
        if os.fstat(handle).st_ino == partial.stat().st_ino:
            return partial, handle
    except (BlockingIOError, FileNotFoundError):  # or it has just got its name
        pass
    os.close(handle)
    return None


def _keep(partial: Path, target: Path) -> None:
    _sync(partial)
    partial.chmod(0o644)
    partial.replace(target)
    _sync(target.parent)


def _named(target: Path, label: str) -> Path:
    return target.parent / f".{target.name}.{label}{PARTIAL_SUFFIX}"


def _create(partial: Path, target: Path, flags: int) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target, spare=partial)
        return os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write to {target.parent}: {error.strerror}") from error


def projector_beside(model: Path) -> Path:
    """Where the vision part of the language model in a GGUF file lies: ``model.gguf`` -> ``model-mmproj.gguf``."""
    return model.with_name(f"{model.name.removesuffix('.gguf')}{PROJECTOR_SUFFIX}.gguf")


def sweep(target: Path, spare: Path | None = None) -> None:
    """Remove what killed processes left of ``target``, partial files that no living one has locked; not ``spare``."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL_SUFFIX}"):
        if partial == spare:
            continue
        with contextlib.suppress(OSError), partial.open("rb") as file:
            _lock(file.fileno())
            partial.unlink()


def require_space(folder: Path, need_bytes: int) -> None:
    """Raise :class:`DiskFull` when the disk of ``folder`` has less than ``need_bytes`` free."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < need_bytes:
        raise DiskFull(
            f"{folder} needs {need_bytes:,} bytes, but its disk has {free_bytes:,} free",
            hint="free some space, or write to another disk",
        )


def _lock(handle: int) -> None:
    """Held until the handle is closed, at the latest by the end of the process. Raises ``OSError`` if it is taken."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
