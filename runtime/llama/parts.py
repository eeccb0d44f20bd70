"""The files of a model: one, or the parts of one that was split."""

from __future__ import annotations

import re
from pathlib import Path

from ...convert import gguf
from ...convert.errors import BadGGUF

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")


def parts_of(file: gguf.GGUF) -> list[gguf.GGUF]:
    """The file, or all parts of the split one that it is the first of. Raises :class:`BadGGUF` for a missing one."""
    return [file, *map(gguf.read, paths_of(file)[1:])]


def paths_of(file: gguf.GGUF) -> list[Path]:
    """Where they are. Raises :class:`BadGGUF` for a missing one."""
    named = _PART.fullmatch(file.path.name)
    if named is None or "split.count" not in file.metadata:
        return [file.path]
    others = [
        file.path.with_name(f"{named['stem']}-{number:05}-of-{named['parts']}.gguf")
        for number in range(2, int(named["parts"]) + 1)
    ]
    for path in others:
        if not path.exists():
            raise BadGGUF(f"{path} is missing: it is part of the model that begins with {file.path.name}")
    return [file.path, *others]
