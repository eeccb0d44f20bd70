"""Models on their way to a repository of the hub: what goes up, under which names, with which card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...convert import gguf
from ...convert.errors import BadName, HubError, InputError
from ...convert.progress import Progress
from . import card, receipt, upload
from .hub import Hub
from .manifest import Entry
from .names import FileName, HubName, parse
from .repository import RemoteFile, Repository
from .store import Store
from .upload import Upload

CARD = "README.md"
RECEIPT_SUFFIX = ".receipt.json"
MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Publication:
    """receipts: of the models, with what the card says of a model beside. uploads: all but the card."""

    name: HubName
    receipts: tuple[Mapping[str, Any], ...]
    uploads: tuple[Upload, ...]
    pictures: tuple[str, ...]

    @classmethod
    def of(cls, repository: str, models: Sequence[str], plots: Sequence[Path], progress: Progress) -> Publication:
        """Raises:
        BadName: no repository. ModelNotFound: no such model. ChecksumMismatch: a file is not what it was.
        InputError: two models would have the same name; a plot that is none.
        """
        name = parse(repository)
        if not isinstance(name, HubName) or name.type or name.revision:
            raise BadName(f"{repository} is no repository to push to", hint="write org/name")
        store = Store()
        receipts, uploads = [], []
        for model in models:
            found, files = _published(model, store, progress)
            receipts.append(found)
            uploads += files
        for plot in plots:
            if not plot.is_file() or plot.suffix.lower() not in (".png", ".svg", ".jpg", ".webp"):
                raise InputError(f"{plot} is no picture that can be shown", hint="--plot of ingle measure draws one")
            uploads.append(Upload(plot.name, plot))
        names = [one.name for one in uploads]
        if twice := next((one for one in names if names.count(one) > 1), None):
            raise InputError(f"two files would be called {twice} in {repository}", hint="push them one after the other")
        return cls(name, tuple(receipts), tuple(uploads), tuple(plot.name for plot in plots))

    def card(self, others: Sequence[Mapping[str, Any]], pictures: Sequence[str] = ()) -> str:
        """others, pictures: what is in the repository already."""
        mine = {one["file"]["name"] for one in self.receipts}
        rest = [one for one in others if one["file"]["name"] not in mine]
        ordered = sorted([*self.receipts, *rest], key=lambda one: -one["file"]["size_bytes"])
        shown = dict.fromkeys([*self.pictures, *pictures])
        return card.write(f"{self.name.org}/{self.name.name}", ordered, list(shown))

    def push(self, *, private: bool, replace_card: bool) -> str:
        """Upload everything; returns the address of the commit.

        Raises:
            HubError: the hub refused. InputError: its README.md is somebody's own, and ``replace_card`` is False.
        """
        upload.create(self.name.repository, private=private)
        hub = Hub.from_environment()
        there = hub.repository(self.name)
        if not replace_card and CARD in there.files:
            text = _text(hub, there, there.files[CARD])
            if card.MARK not in text and not _is_empty(text):
                raise InputError(
                    f"{self.name.repository} has a README.md that ingle did not write",
                    hint="--replace-card replaces it; it stays in the history of the repository",
                )
        others = [json.loads(_text(hub, there, file)) for file in _named(there, RECEIPT_SUFFIX)]
        pictures = [file.name for file in _named(there, ".png", ".svg")]
        written = Upload(CARD, self.card(others, pictures).encode())
        message = f"Add {', '.join(one['file']['name'] for one in self.receipts)}"
        return upload.commit(self.name.repository, [*self.uploads, written], message, there.commit)


def _published(model: str, store: Store, progress: Progress) -> tuple[Mapping[str, Any], list[Upload]]:
    """The receipt of a model, and its files."""
    entry = store.find(model)
    if len(entry.files) > 1:
        raise InputError(f"{model} is a model in {len(entry.files)} files", hint="merge them into one first")
    wanted = receipt.known_sha256(entry, entry.files[0], store)
    digest = receipt.require_sha256(entry.path, wanted, entry, progress)
    file = gguf.read(entry.path)
    name = _name(entry)
    found = {**receipt.of(entry, file, store, digest), "model": receipt.model(entry, file)}
    found["file"] = {**found["file"], "name": name}
    uploads = [Upload(name, entry.path), Upload(name + RECEIPT_SUFFIX, _json(found))]
    if entry.projector:
        uploads.append(Upload(f"{name.removesuffix('.gguf')}-mmproj.gguf", entry.projector.path))
    return found, uploads


def _name(entry: Entry) -> str:
    """``SmolLM2-360M-Q8_0.gguf``: what was built here is kept under a longer name."""
    name = parse(entry.name)
    return entry.path.name if isinstance(name, FileName) or not entry.built else f"{name.name}-{entry.type}.gguf"


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _named(there: Repository, *suffixes: str) -> Iterator[RemoteFile]:
    return (file for name, file in there.files.items() if name.endswith(suffixes))


def _text(hub: Hub, there: Repository, file: RemoteFile) -> str:
    content = bytearray()
    with hub.body(there, file, 0) as body:
        for chunk in body.chunks:
            content += chunk
            if len(content) > MOST_TEXT_BYTES:
                raise HubError(f"{file.name} of {there.id} is longer than {MOST_TEXT_BYTES:,} bytes")
    return content.decode("utf-8", "replace")


def _is_empty(text: str) -> bool:
    """Whether a card says nothing but its front matter."""
    parts = text.split("---", 2)
    return not (parts[2] if text.startswith("---") and len(parts) == 3 else text).strip()
