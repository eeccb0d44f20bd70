"""Where things are on this machine: read from the environment at each call, so that a program may change it."""

from __future__ import annotations

import os
from pathlib import Path

from ...convert.errors import StorageError

_TRUE = {"1", "ON", "YES", "TRUE"}


def home() -> Path:
    """``INGLE_HOME``, or ``ingle`` in the XDG data folder (``~/.local/share``)."""
    if chosen := os.environ.get("INGLE_HOME"):
        return Path(chosen).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "ingle"


def hub_cache() -> Path:
    """The standard Hugging Face cache, found as its own client finds it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(variable):
            return _expanded(chosen)
    if hub_home := os.environ.get("HF_HOME"):
        return _expanded(hub_home) / "hub"
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def hub_endpoint() -> str:
    """``HF_ENDPOINT``, or the public hub; no slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` (or ``TRANSFORMERS_OFFLINE``) forbids the network."""
    wish = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return wish.upper() in _TRUE


def create_private(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, for its owner alone.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        for path in (*reversed(folder.parents), folder):
            if not path.is_dir():
                path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {folder}: {error.strerror}", hint="set INGLE_HOME") from error


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()
