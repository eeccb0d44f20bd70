"""Model names: what a person may write where a model is asked for.

    org/name[:TYPE][@revision]    a repository of the hub; ``@revision:TYPE`` is read too
    ./folder[:TYPE]               a checkpoint folder: starts with ``.``, ``/`` or ``~``
    path/to/file.gguf             a GGUF file, used as it is

The grammar looks at the text alone, never at the disk, so a name means the same everywhere.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...convert.errors import BadName

LONGEST_NAME = 4096
LONGEST_REPOSITORY = 96
LONGEST_REVISION = 64
FORMS = "a name is org/name, org/name:TYPE, org/name@revision, a checkpoint folder (./x, /x or ~/x) or a .gguf file"

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_OUTSIDE_FILE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of the hub; ``revision`` None is its main branch, ``type`` None leaves the choice to ingle."""

    org: str
    name: str
    type: str | None = None
    revision: str | None = None

    @property
    def repository(self) -> str:
        return f"{self.org}/{self.name}"

    @property
    def key(self) -> str:
        """Where this model lives, relative to a store; two different models never share a key."""
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"models/{self.org}/{self.name}{revision}"

    def typed(self, type_name: str) -> HubName:
        return HubName(self.org, self.name, type_name, self.revision)

    def __str__(self) -> str:
        type_name = f":{self.type}" if self.type else ""
        return f"{self.repository}{type_name}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class FolderName:
    """A checkpoint folder, by its absolute path."""

    path: Path
    type: str | None = None

    @property
    def key(self) -> str:
        """Where what was built from this folder lives, relative to a store."""
        digest = hashlib.sha256(bytes(self.path.resolve())).hexdigest()[:12]
        return f"folders/{self.name}-{digest}"

    @property
    def name(self) -> str:
        """The folder's own name, made fit for any file name."""
        return _OUTSIDE_FILE_NAMES.sub("-", self.path.resolve().name)[:64].strip(".-") or "checkpoint"

    def typed(self, type_name: str) -> FolderName:
        return FolderName(self.path, type_name)

    def __str__(self) -> str:
        text = str(self.path)
        if not self.type:
            return f"{text}/" if ":" in self.path.name or _is_file_name(text) else text
        return f"{text}/:{self.type}" if _is_file_name(text) else f"{text}:{self.type}"


@dataclass(frozen=True, slots=True)
class FileName:
    """A GGUF file, by its absolute path."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


ModelName = HubName | FolderName | FileName


def parse(text: str) -> ModelName:
    """Read a model name.

    Raises:
        BadName: the text is none of the forms above.
    """
    if not text or len(text) > LONGEST_NAME or _UNPRINTABLE.search(text):
        raise BadName(f"{text[:80]!r} is not a model name", hint=FORMS)
    if _is_file_name(text):
        return FileName(_absolute(text))
    if text[0] in "./~":
        return _parse_folder(text)
    return _parse_hub_name(text)


def _parse_folder(text: str) -> FolderName:
    path, colon, type_name = text.rpartition(":")
    if not colon or "/" in type_name:
        return FolderName(_absolute(text))
    if _is_file_name(path):
        raise BadName(f"{text!r} asks for a type of a GGUF file, which has the type it has", hint=f"write {path}")
    return FolderName(_absolute(path), _type(type_name, text))


def _parse_hub_name(text: str) -> HubName:
    repository, at, revision = text.partition("@")
    repository, colon, type_name = repository.partition(":")
    if at and not colon:
        revision, colon, type_name = revision.partition(":")
    org, _, name = repository.partition("/")
    if not all(map(_is_part, (org, name))) or len(repository) > LONGEST_REPOSITORY:
        raise BadName(f"{text!r} is not a model name", hint=f"{FORMS}; a folder named {text} is written ./{text}")
    return HubName(org, name, _type(type_name, text) if colon else None, _revision(revision, text) if at else None)


def _is_part(text: str) -> bool:
    return bool(_PART.fullmatch(text)) and "--" not in text and ".." not in text


def _is_file_name(text: str) -> bool:
    return text.lower().endswith(".gguf")


def _type(text: str, name: str) -> str:
    if not _TYPE.fullmatch(text):
        raise BadName(f"{text!r} in {name!r} is not a type", hint="a type is written like Q4_K_M; see --types")
    return text.upper()


def _revision(text: str, name: str) -> str:
    if not _REVISION.fullmatch(text) or ".." in text or len(text) > LONGEST_REVISION:
        raise BadName(f"{text!r} in {name!r} is not a revision", hint="a revision is a branch, a tag or a commit")
    return text


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~nobody
        raise BadName(f"{text!r}: {error}", hint=FORMS) from error
