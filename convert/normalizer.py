"""What a tokenizer.json does to a text before it cuts it: Unicode normal form and the treatment of spaces."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import BadCheckpoint
from .gguf import Value

SPACE = "▁"
MOST_SHOWN = 200
NORMAL_FORMS = ("NFC", "NFD", "NFKC", "NFKD")

Prefix = Literal["", "before", "first", "always"]
"""A space put before text. ``before``: every stretch of text between added tokens, whatever it begins with;
``always``: the same, unless it begins with a space; ``first``: as always, but only where the whole text begins."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """The steps of ``normalizer`` and, for SentencePiece-style tokenizers, ``pre_tokenizer``.

    escapes_spaces: spaces become ``▁``. merges_spaces: runs of spaces become one and the outer ones go;
    merges_all: other white space counts as spaces there.
    charsmap: sentencepiece's compiled replacements. unknown: steps we do not know; any of them is a refusal.
    """

    form: str = ""
    escapes_spaces: bool = False
    merges_spaces: bool = False
    merges_all: bool = False
    prefix: Prefix = ""
    charsmap: bytes = b""
    unknown: tuple[str, ...] = ()

    def settings(self) -> dict[str, Value]:
        """Metadata for the parts that llama.cpp does not do and :mod:`ingle.runtime.normalize` does."""
        values: dict[str, Value] = {"ingle.tokenizer.normalizer": self.form} if self.form else {}
        if self.prefix in ("first", "always"):
            values["ingle.tokenizer.space_prefix"] = self.prefix
        if self.merges_all:
            values["ingle.tokenizer.white_space"] = True
        return values


def read(normalizer: Mapping[str, Any] | None, pre_tokenizer: Mapping[str, Any] | None = None) -> Normalization:
    """Pass a ``pre_tokenizer`` for SentencePiece-style tokenizers only; byte-level ones cut by expressions."""
    result = Normalization()
    for part in _flatten(normalizer, "normalizers"):
        result = _normalize(result, part)
    for part in _flatten(pre_tokenizer, "pretokenizers"):
        result = _pre_tokenize(result, part)
    return result


def _flatten(node: Mapping[str, Any] | None, children: str) -> Iterator[Mapping[str, Any]]:
    if node is None:
        return
    if node.get("type") == "Sequence":
        for child in node.get(children, ()):
            yield from _flatten(child, children)
    else:
        yield node


def _normalize(result: Normalization, part: Mapping[str, Any]) -> Normalization:
    match part:
        case {"type": form} if form in NORMAL_FORMS and not result.form:
            return replace(result, form=form)
        case {"type": "Prepend", "prepend": "▁"}:
            return replace(result, prefix="before")
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
            return replace(result, escapes_spaces=True)
        case {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " " | "▁"}:
            return replace(result, merges_spaces=True)
        case {"type": "Strip"}:
            return replace(result, merges_spaces=True)
        case {"type": "Precompiled", "precompiled_charsmap": str(encoded)}:
            return _with_charsmap(result, encoded)
        case {"type": "Precompiled"}:
            return result
    return _with_unknown(result, part)


def _pre_tokenize(result: Normalization, part: Mapping[str, Any]) -> Normalization:
    match part:
        case {"type": "Metaspace", "replacement": "▁"}:
            return replace(result, escapes_spaces=True, prefix=_metaspace_prefix(part))
        case {"type": "WhitespaceSplit"}:
            return replace(result, merges_spaces=True, merges_all=True)
        case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"} if result.escapes_spaces:
            return result  # no space is left to split at
    return _with_unknown(result, part)


def _metaspace_prefix(part: Mapping[str, Any]) -> Prefix:
    scheme = part.get("prepend_scheme") or ("always" if part.get("add_prefix_space", True) else "never")
    return "first" if scheme == "first" else "always" if scheme == "always" else ""


def _with_charsmap(result: Normalization, encoded: str) -> Normalization:
    """Its first four bytes are the size of the table in front of the replacements."""
    try:
        charsmap = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        charsmap = b"broken"
    if charsmap and not 4 + int.from_bytes(charsmap[:4], "little") < len(charsmap):
        raise BadCheckpoint("the precompiled charsmap of tokenizer.json is broken", hint="download the file again")
    return replace(result, charsmap=charsmap)


def _with_unknown(result: Normalization, part: Mapping[str, Any]) -> Normalization:
    options = {key: value for key, value in part.items() if key != "type"}
    return replace(result, unknown=(*result.unknown, f"{part.get('type')} {options}"[:MOST_SHOWN]))
