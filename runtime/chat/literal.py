"""Literals of a format matched against text that is still arriving."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from enum import Enum

from .formats import ANY, KEY

WILD = re.compile(r"[\w.:-]*")
SPACE = re.compile(r"\s*")


class Verdict(Enum):
    """PARTIAL: what there is of the text fits, and more of it must decide. NEVER: it does not fit."""

    PARTIAL = "partial"
    NEVER = "never"


Match = int | Verdict


def match(literal: str, text: str, at: int, key: str = "") -> Match:
    """Where ``literal`` ends that stands at ``at``. White space in it, and around it, is any white space."""
    for part in parts(literal.replace(KEY, key)):
        at = space(text, at)
        if part == ANY:
            found = WILD.match(text, at)
            at = found.end() if found else at
            if at == len(text):
                return Verdict.PARTIAL
        elif text.startswith(part, at):
            at += len(part)
        elif part.startswith(text[at:]):
            return Verdict.PARTIAL
        else:
            return Verdict.NEVER
    return at


def space(text: str, at: int) -> int:
    """Behind the white space at ``at``."""
    found = SPACE.match(text, at)
    return found.end() if found else at


@functools.lru_cache(maxsize=1024)
def parts(literal: str) -> tuple[str, ...]:
    """The words of a literal, and the tags; :data:`ANY` is one of its own."""
    return tuple(part for part in re.split(rf"\s+|({ANY})|(?<=>)(?=<)", literal) if part)


def head(literal: str) -> str:
    """What a literal begins with, up to its first white space."""
    return parts(literal)[0]


def begins(literals: Sequence[str], text: str, at: int) -> int:
    """Where one of ``literals`` begins, or may begin with what is still to come; the end of the text otherwise."""
    return min((_begins(head(literal), text, at) for literal in literals), default=len(text))


def _begins(word: str, text: str, at: int) -> int:
    found = text.find(word, at)
    if found >= 0:
        return found
    for length in range(min(len(word) - 1, len(text) - at), 0, -1):
        if text.endswith(word[:length]):
            return len(text) - length
    return len(text)
