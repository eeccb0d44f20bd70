"""The head of a model card: the few facts at the top of README.md that a GGUF file carries on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MAX_BYTES = 4 << 20
FENCE = "---"
ENTRY = re.compile(r"([A-Za-z_]\w*):(?:\s+(.*))?")
DASH = re.compile(r"\s*-\s+(.*)")


def read(folder: Path) -> dict[str, list[str]]:
    """The top-level keys of README.md's front matter whose value is a word or a list of words; empty without one.

    This is the part of YAML that model cards use for such keys; deeper structures are skipped. A card is decoration:
    one that cannot be read is no card.
    """
    path = folder / "README.md"
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    if not lines or lines[0] != FENCE or FENCE not in lines[1:]:
        return {}
    return _parse(lines[1 : lines.index(FENCE, 1)])


def first(card: Mapping[str, list[str]], key: str) -> str:
    """The value of a key that has one; empty when it is absent."""
    return next(iter(card.get(key, ())), "")


def _parse(lines: list[str]) -> dict[str, list[str]]:
    card: dict[str, list[str]] = {}
    values: list[str] = []
    for line in lines:
        if entry := ENTRY.fullmatch(line):
            values = card.setdefault(entry[1], [])
            values.extend(_inline(entry[2] or ""))
        elif (item := DASH.fullmatch(line)) and not ENTRY.fullmatch(item[1]):
            values.extend(_inline(item[1]))
    return card


def _inline(text: str) -> list[str]:
    text = re.sub(r"(^|\s)#.*", "", text).strip()
    if text.startswith("[") and text.endswith("]"):
        return [word for part in text[1:-1].split(",") if (word := _unquoted(part.strip()))]
    return [] if text in ("", "|", ">", "|-", ">-", "null", "~") else [_unquoted(text)]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" else text
