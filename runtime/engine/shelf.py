"""Who may find what in the prefix cache of one model, and what of it is on disk."""

from __future__ import annotations

from pathlib import Path

from ..llama.context import Context
from ..llama.kernels import cache_folder
from ..llama.model import NativeModel
from ..options import LoadOptions
from ..request import ModelInfo
from . import identity
from .blocks import Blocks
from .disk_cache import DiskCache


def shelf(model: NativeModel, info: ModelInfo, options: LoadOptions, context: Context) -> Shelf | None:
    """None where nothing is to be kept, or nothing can be: a block of a recurrent state, or of a window that moved on,
    is none."""
    if not options.cache_disk_bytes or not options.prefix_cache or not model.can_share_prefix or model.sliding_window:
        return None
    return Shelf(model, info, options, context)


class Shelf:
    """``blocks`` of a model in a folder that all models share.

    Raises:
        StorageError: the folder cannot be made.
    """

    def __init__(self, model: NativeModel, info: ModelInfo, options: LoadOptions, context: Context) -> None:
        self._root = identity.identity(model, info, options)
        self._adapters = {
            name: (identity.file_digest(Path(adapter.path)), adapter.scale) for name, adapter in model.adapters.items()
        }
        self._roots: dict[int, bytes] = {}
        self._disk = DiskCache(cache_folder() / "kv", options.cache_disk_bytes)
        self.blocks = Blocks(self._disk, context, self._roots)

    @property
    def bytes(self) -> int:
        return self._disk.bytes

    def open(self, realm: int, owner: str, adapters: tuple[str, ...]) -> None:
        """Let the realm of that number find what ``owner`` had computed with ``adapters``."""
        chosen = tuple(self._adapters[name] for name in adapters)
        self._roots[realm] = identity.realm(self._root, owner, chosen)

    def close(self) -> None:
        """Write what waits to be written, for some seconds at most."""
        self._disk.close()


class Realms:
    """Numbers for those requests that may find each other's tokens: of one owner, computed with the same adapters."""

    def __init__(self, shelf: Shelf | None) -> None:
        self._shelf = shelf
        self._numbers: dict[tuple[str, tuple[str, ...]], int] = {}

    def number(self, owner: str, adapters: tuple[str, ...]) -> int:
        if (owner, adapters) not in self._numbers:
            self._numbers[owner, adapters] = len(self._numbers)
            if self._shelf:
                self._shelf.open(self._numbers[owner, adapters], owner, adapters)
        return self._numbers[owner, adapters]
