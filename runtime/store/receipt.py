"""The receipt of a model: what it was made of, by what, how it was proven, and what was measured. ``show`` prints it,
``verify`` checks it, ``push`` writes the model card from it.

It is put together when it is asked for, from the file's metadata, the store's manifest and the figures beside the file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...convert import gguf, origin
from ...convert.errors import ChecksumMismatch, ModelNotFound
from ...convert.gguf import GGUF, Value
from ...convert.progress import Progress, silent
from ...quantize.types import TYPES
from .. import proof
from . import figures, places
from .cache import Cache
from .manifest import Entry, KeptFile
from .store import Store, sha256

FORMAT = 1
IMPORTANCE = {
    "file": "quantize.imatrix.file",
    "dataset": "quantize.imatrix.dataset",
    "weights": "quantize.imatrix.entries_count",
    "chunks": "quantize.imatrix.chunks_count",
    "sha256": "ingle.imatrix.sha256",
    "corpus_sha256": "ingle.imatrix.corpus_sha256",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a model's receipt found: its bytes are what they were. ``source_files`` of the checkpoint are what
    they were; None where it is not here. ``changed`` are not."""

    source_files: int | None
    changed: tuple[str, ...]


def of(entry: Entry, file: GGUF, store: Store, digest: str = "") -> dict[str, Any]:
    """The receipt, as JSON takes it. digest: the SHA-256 of a file that the store did not keep, if it was computed."""
    digest = entry.sha256 or digest
    return {
        "format": FORMAT,
        "file": {"name": entry.path.name, "size_bytes": file.size_bytes, "sha256": digest},
        "made_by": str(file.metadata.get(origin.VERSION_KEY, entry.ingle)),
        "source": _source(entry, file.metadata),
        "bits_per_weight": 8 * file.size_bytes / max(weights(file), 1),
        "types": types(file),
        "importance": importance(file.metadata),
        "proof": entry.proof or proof.of(file.metadata),
        "measured": measured(entry, store, digest),
    }


def weights(file: GGUF) -> int:
    return sum(math.prod(info.shape) for info in file.tensors.values())


def types(file: GGUF) -> dict[str, int]:
    """Element type -> how many tensors have it, the commonest first."""
    return dict(Counter(info.type.name for info in file.tensors.values()).most_common())


def importance(metadata: Mapping[str, Value]) -> dict[str, Any] | None:
    """What a file says of the importance matrix it was quantized with; None where there was none."""
    found = {name: _plain(metadata[key]) for name, key in IMPORTANCE.items() if key in metadata}
    return found or None


def measured(entry: Entry, store: Store, digest: str) -> list[dict[str, Any]]:
    """The records of the figures, unless they are known to be of other bytes."""
    found = figures.read(figures.place(store, entry))
    if found is None or (digest and found.sha256 != digest):
        return []
    return [dict(record) for record in found.records]


def model(entry: Entry, file: GGUF) -> dict[str, Any]:
    """What a model card says of the model itself."""
    metadata = file.metadata
    kind = next((one.name for one in TYPES.values() if one.native_id == metadata.get("general.file_type")), "")
    return {
        "title": str(metadata.get("general.name", "")),
        "architecture": str(metadata.get("general.architecture", "")),
        "parameters": weights(file),
        "type": entry.type or kind,
        "license": str(metadata.get("general.license", "")),
        "license_name": str(metadata.get("general.license.name", "")),
        "license_link": str(metadata.get("general.license.link", "")),
        "languages": _words(metadata, "general.languages"),
        "tags": _words(metadata, "general.tags"),
        "reads": any(key.endswith(".pooling_type") for key in metadata),
    }


def _words(metadata: Mapping[str, Value], key: str) -> list[str]:
    found = metadata.get(key)
    return list(found) if isinstance(found, list) else []


def check(entry: Entry, store: Store, progress: Progress = silent) -> Checked:
    """Compute again what the receipt says: the SHA-256 of the files, and of the checkpoint's where it is here.

    Raises:
        ChecksumMismatch: a file of the model is not what it was. ModelNotFound: no checksum of it was kept.
    """
    for file in entry.all_files:
        wanted = known_sha256(entry, file, store)
        if not wanted and file.path == entry.path:
            raise ModelNotFound(
                f"{file.path} is not kept by ingle, and was not measured: there is no checksum to compare it with",
                hint="--source CHECKPOINT compares what it says of the checkpoint it was made of",
            )
        if wanted:
            require_sha256(file.path, wanted, entry, progress)
    folder = checkpoint(entry)
    recorded = origin.files(gguf.read(entry.path).metadata)
    if folder is None or not recorded:
        return Checked(None, ())
    changed = different(folder, recorded, progress)
    return Checked(len(recorded) - len(changed), changed)


def known_sha256(entry: Entry, file: KeptFile, store: Store) -> str:
    """As it was when the file was kept, or measured; empty where neither happened."""
    measured = figures.read(figures.place(store, entry)) if file.path == entry.path else None
    return file.sha256 or (measured.sha256 if measured else "")


def require_sha256(path: Path, wanted: str, entry: Entry, progress: Progress) -> str:
    """The SHA-256 of a file. Raises :class:`ChecksumMismatch` when it is not ``wanted`` (empty: whatever it is)."""
    actual = sha256(path, progress)
    if wanted and actual != wanted:
        again = f"run: ingle rm {entry.name}, then: ingle pull {entry.name}"
        kept = bool(entry.files[0].sha256)
        raise ChecksumMismatch(
            f"{path} of {entry.name} is not what it was: SHA-256 {actual}, "
            f"{'kept' if kept else 'measured'} with {wanted}",
            hint=again if kept else "if it was made anew, measure it again with --record",
        )
    return actual


def checkpoint(entry: Entry) -> Path | None:
    """Where the checkpoint is that a model was built from, if it is here."""
    if entry.source.kind == "folder":
        found = Path(entry.source.location)
    elif entry.built:
        found = Cache(places.hub_cache()).folder(entry.source.location) / "snapshots" / entry.source.version
    else:
        return None
    return found if found.is_dir() else None


def different(folder: Path, recorded: Mapping[str, str], progress: Progress = silent) -> tuple[str, ...]:
    """The files that are missing in ``folder``, or are others than were recorded."""
    return tuple(
        name
        for name, digest in recorded.items()
        if not (folder / name).is_file() or sha256(folder / name, progress) != digest
    )


def _source(entry: Entry, metadata: Mapping[str, Value]) -> dict[str, Any]:
    hub = entry.source.kind == "hub"
    return {
        "repository": str(metadata.get(origin.REPOSITORY_KEY, entry.source.location if hub else "")),
        "revision": str(metadata.get(origin.REVISION_KEY, entry.source.version if hub else "")),
        "files": origin.files(metadata),
    }


def _plain(value: Value) -> Any:
    return value.item() if hasattr(value, "item") else value
