"""Whether a checkpoint folder is still the one a model was built from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...convert.errors import BadCheckpoint
from .selection import SMALL_FILES, WEIGHTS_SUFFIX


def fingerprint(folder: Path) -> str:
    """Hex digest over what a conversion reads: configs and tokenizers by content, weights by size and time.

    Raises:
        BadCheckpoint: the folder cannot be read, or holds no ``config.json``.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if _is_read(path))
        if not any(path.name == "config.json" for path in paths):
            raise BadCheckpoint(f"{folder} has no config.json", hint="name a folder that save_pretrained has written")
        digest = hashlib.sha256()
        for path in paths:
            digest.update(f"{path.name}\0{_state(path)}\0".encode())
    except OSError as error:
        raise BadCheckpoint(f"cannot read {error.filename or folder}: {error.strerror}") from error
    return digest.hexdigest()


def _is_read(path: Path) -> bool:
    return path.name in SMALL_FILES or path.name.endswith((WEIGHTS_SUFFIX, ".json", ".jinja", ".model"))


def _state(path: Path) -> str:
    if path.name.endswith(WEIGHTS_SUFFIX):
        stat = path.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
