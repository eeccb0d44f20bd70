"""What was measured of a model, kept beside its file as ``NAME.gguf.figures.json``.

Beside it and not in it: the bytes of a file, and the checksums that the hub, the store and other people have of it, do
not change because somebody measured it; and a figure is not of the file alone, but of a text, a base and a machine, so
that there may be many. What belongs to the file alone (source, proof, importance matrix) is in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...convert.errors import StorageError
from ...convert.files import appearing
from .manifest import Entry
from .names import FileName, parse
from .store import FIGURES_SUFFIX, Store

FORMAT = 1
SAME = ("on", "length", "most", "base", "machine", "ingle")
"""A record takes the place of an earlier one that has these in common."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the file that had this SHA-256 when it was measured."""

    sha256: str
    records: tuple[Record, ...]


def place(store: Store, entry: Entry) -> Path:
    """Where the figures of a model are: beside its file, or beside its manifest where the file is in a cache."""
    name = parse(entry.name)
    folder = entry.path.parent if isinstance(name, FileName) else store.folder(name)
    return folder / f"{entry.path.name}{FIGURES_SUFFIX}"


def read(path: Path) -> Figures | None:
    """The figures at ``path``; None where there are none.

    Raises:
        StorageError: the file is broken.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError("written by another version of ingle")
        return Figures(str(record["sha256"]), tuple(map(dict, record["records"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"the figures in {path} are broken: {error}", hint="remove that file") from error


def keep(path: Path, sha256: str, record: Record) -> None:
    """Add ``record``; what was measured of other bytes goes."""
    known = read(path)
    earlier = known.records if known and known.sha256 == sha256 else ()
    kept = [one for one in earlier if any(one.get(key) != record.get(key) for key in SAME)]
    content = {"format": FORMAT, "sha256": sha256, "records": [*kept, record]}
    with appearing(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
