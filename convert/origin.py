"""What a file says about the checkpoint that it was made of: repository, revision, and the hash of each file."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .gguf import Value
from .metadata import model_id
from .tensor import Arrive

VERSION_KEY = "ingle.version"
REPOSITORY_KEY = "ingle.source.repository"
REVISION_KEY = "ingle.source.revision"
FILES_KEY = "ingle.source.files"
READ_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".md")
SHA256 = re.compile(r"[0-9a-f]{64}")
UNKNOWN = "0" * 64
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """version: of ingle. known: SHA-256 of files of the checkpoint, by name, that somebody has computed and checked."""

    version: str
    known: Mapping[str, str] = field(default_factory=dict)


class Hashing:
    """The hashes of a checkpoint's files, computed in a thread beside the work while the block runs.

    weights: the files of tensors. Of the rest those count that a conversion may read. Without an origin there is
    nothing to say.
    """

    def __init__(self, origin: Origin | None, folder: Path, weights: Iterable[Path], arrive: Arrive | None) -> None:
        self._origin, self._folder, self._arrive = origin, folder, arrive
        small = [path for path in folder.iterdir() if path.suffix in READ_SUFFIXES and path.is_file()]
        self._files = sorted({*small, *weights}, key=lambda path: path.name) if origin else []
        self._found: dict[Path, str] = {}
        self._failure: BaseException | None = None
        self._wanted = True
        self._thread = threading.Thread(target=self._run, name="ingle-hashing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wanted = False

    @property
    def expected(self) -> dict[str, Value]:
        """The keys, with hashes that take as much place as the true ones."""
        return self._keys(lambda path: UNKNOWN)

    def found(self) -> dict[str, Value]:
        """The keys; waits until all is known.

        Raises:
            OSError: a file could not be read. HubError, ChecksumMismatch: it did not arrive.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._keys(self._found.__getitem__)

    def _keys(self, hash_of: Callable[[Path], str]) -> dict[str, Value]:
        if self._origin is None:
            return {}
        repository = model_id(self._folder)
        cached = "/" in repository
        return {
            VERSION_KEY: self._origin.version,
            **({REPOSITORY_KEY: repository, REVISION_KEY: self._folder.resolve().name} if cached else {}),
            FILES_KEY: [f"{hash_of(path)}  {path.name}" for path in self._files],
        }

    def _run(self) -> None:
        try:
            for path in self._files:
                self._found[path] = self._hash(path)
        except BaseException as error:  # raised where the hashes are waited for
            self._failure = error

    def _hash(self, path: Path) -> str:
        if self._origin and (known := self._origin.known.get(path.name)):
            return known
        if SHA256.fullmatch(path.resolve().name):  # a blob of the Hugging Face cache, checked when it was fetched
            return path.resolve().name
        digest = hashlib.sha256()
        if self._arrive is not None and path.suffix not in READ_SUFFIXES:
            digest.update(self._arrive(path))
            return digest.hexdigest()
        with path.open("rb") as file:
            while self._wanted and (chunk := file.read(CHUNK_BYTES)):
                digest.update(chunk)
        return digest.hexdigest()


def files(metadata: Mapping[str, Value]) -> dict[str, str]:
    """Name -> SHA-256, as a file has them."""
    lines = metadata.get(FILES_KEY, [])
    pairs = [line.partition("  ") for line in lines] if isinstance(lines, list) else []
    return {name: digest for digest, _, name in pairs}
