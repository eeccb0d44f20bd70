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
PROJECTOR_SUFFIX = "-mmproj"


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that becomes ``target`` when the block ends well, and vanishes otherwise.

    The bytes are on the disk before the name is: fsync file, rename, fsync folder. A process killed inside the
    block leaves one ``*.partial`` file, which the next writer of the same target removes (:func:`sweep`).

    Raises:
        StorageError: the folder cannot be written. DiskFull: no space was left.
    """
    # Its name is known before it is there, so that an interruption at any moment finds it.
    partial = target.parent / f".{target.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
    handle: int | None = None
    try:
        handle = _create(partial, target)
        _lock(handle)
        yield partial
        _sync(partial)
        partial.chmod(0o644)
        partial.replace(target)
        _sync(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space left while writing {target}", hint="free some space and run it again") from error
        raise
    finally:
        with contextlib.suppress(OSError):  # it has its name, or was never there; the next writer removes what is left
            partial.unlink()
        if handle is not None:
            os.close(handle)


def _create(partial: Path, target: Path) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        return os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write to {target.parent}: {error.strerror}") from error


def projector_beside(model: Path) -> Path:
    """Where the vision part of the language model in a GGUF file lies: ``model.gguf`` -> ``model-mmproj.gguf``."""
    return model.with_name(f"{model.name.removesuffix('.gguf')}{PROJECTOR_SUFFIX}.gguf")


def sweep(target: Path) -> None:
    """Remove what killed processes left of ``target``: partial files that no living process has locked."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*{PARTIAL_SUFFIX}"):
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
