"""The part of tokenizing that llama.cpp does not do: what a text goes through before llama.cpp sees it.

Driven by metadata that the converter writes (``ingle.tokenizer.*``); files without it pass through unchanged. The
proof of a conversion and the running engine use this one function, so prompts are tokenized exactly as proven.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Literal, cast

from ..convert.gguf import Value

SPACES = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)
"""What Unicode calls White_Space (``str.strip()`` would take control characters, too)."""

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


def prepare(text: str, metadata: Mapping[str, Value], *, parse_special: bool = True) -> str:
    """``text`` as it must be given to llama.cpp's tokenizer of a model with ``metadata``.

    Added tokens in the text (``ingle.tokenizer.added``) stay as they are; between them, spaces that a token swallows
    go (``lstrip``, ``rstrip``), the Unicode normal form is applied (``normalizer``), white space of any kind becomes
    spaces (``white_space``), and a space is put before the text (``space_prefix``: ``first`` or ``always``). Without
    ``parse_special`` all of it is plain text.
    """
    if not needs_preparation(metadata):
        return text
    parts = _splitter(tuple(_texts(metadata, "added"))).split(text) if parse_special else [text]
    _strip(parts, _texts(metadata, "lstrip"), _texts(metadata, "rstrip"))
    form = metadata.get("ingle.tokenizer.normalizer")
    if form:
        parts[::2] = [unicodedata.normalize(cast(Form, form), part) for part in parts[::2]]
    if metadata.get("ingle.tokenizer.white_space"):
        parts[::2] = [part.translate(_TO_SPACE) for part in parts[::2]]
    _prefix(parts, metadata)
    return "".join(parts)


def needs_preparation(metadata: Mapping[str, Value]) -> bool:
    """Whether :func:`prepare` may change a text."""
    return any(key in metadata for key in _KEYS)


_KEYS = tuple(f"ingle.tokenizer.{name}" for name in ("normalizer", "white_space", "space_prefix", "lstrip", "rstrip"))
_TO_SPACE = str.maketrans(dict.fromkeys(SPACES, " "))


def _strip(parts: list[str], lstrip: Collection[str], rstrip: Collection[str]) -> None:
    """``parts`` alternate: text, token, text, ..., text."""
    for index in range(1, len(parts), 2):
        if parts[index] in lstrip:
            parts[index - 1] = parts[index - 1].rstrip(SPACES)
        if parts[index] in rstrip:
            parts[index + 1] = parts[index + 1].lstrip(SPACES)


def _prefix(parts: list[str], metadata: Mapping[str, Value]) -> None:
    where = metadata.get("ingle.tokenizer.space_prefix")
    spaces = " " if metadata.get("tokenizer.ggml.model") == "gpt2" else (" ", "▁")
    places = {"first": (0,), "always": range(0, len(parts), 2)}.get(str(where), ())
    for index in places:
        if parts[index] and not parts[index].startswith(spaces):
            parts[index] = " " + parts[index]


def _texts(metadata: Mapping[str, Value], name: str) -> list[str]:
    value = metadata.get(f"ingle.tokenizer.{name}")
    return value if isinstance(value, list) else []


@functools.lru_cache(maxsize=16)
def _splitter(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Splits at the longest token at each place; the tokens are kept, at odd places."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if tokens else "((?!))")
