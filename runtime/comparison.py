"""Two tokenizers on thousands of texts: the checkpoint's own, and the one of a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..convert.errors import BadGGUF, LoadFailed, VerificationFailed
from ..convert.gguf import Value
from ..convert.progress import Progress, silent
from ..convert.vocabulary import TokenType
from . import corpus
from .llama.vocab import Vocab
from .truth import Truth

STAGE = "verify"
ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED)
SHOWN = 5
"""How many differences are shown."""
PAIRS = 400

Tokens = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to tokenize a text, in the checkpoint's tokenizer and in ours. ``unless``: not texts that hold one of
    these."""

    name: str
    theirs: Tokens
    ours: Tokens
    unless: tuple[str, ...] = ()

    def differs(self, text: str) -> bool:
        return not any(part in text for part in self.unless) and [*self.theirs(text)] != [*self.ours(text)]


@dataclass(frozen=True, slots=True)
class Difference:
    """One text that gives other tokens. ``index``: which one of the corpus; ``how``: the name of the mode."""

    index: int
    how: str
    text: str
    theirs: tuple[int, ...]
    ours: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"the tokenizers differ at string {self.index}, {self.how}: {self.text!r}\n"
            f"  checkpoint: {list(self.theirs)}\n  llama.cpp:  {list(self.ours)}"
        )


@dataclass(frozen=True, slots=True)
class Found:
    """compared: how many texts and pairs were looked at. differing: how many of them give other tokens. first: the
    first of these, at most five."""

    compared: int
    differing: int
    first: tuple[Difference, ...]


def open_vocabulary(file: Path) -> Vocab:
    """Raises :class:`VerificationFailed` where llama.cpp refuses the file."""
    try:
        return Vocab.open(file)
    except LoadFailed as error:
        raise VerificationFailed(error.message, hint="the converted vocabulary is wrong; please report it") from error


def texts_for(vocab: Vocab, metadata: Mapping[str, Value], parses_special: bool) -> list[str]:
    """The corpus for a vocabulary, made of its own pieces (the space marker shown as a space) among others."""
    spelled, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(spelled, list) or not isinstance(types, np.ndarray):
        raise BadGGUF("the file has no vocabulary")
    ordinary = np.flatnonzero(types == int(TokenType.NORMAL)).tolist()
    added = np.flatnonzero(np.isin(types, [int(kind) for kind in ADDED])).tolist() if parses_special else []
    pieces = [vocab.piece(token).decode("utf-8", "replace") for token in ordinary]
    return corpus.strings(pieces, [spelled[token] for token in added])


def native_modes(truth: Truth, vocab: Vocab) -> tuple[Mode, ...]:
    """llama.cpp's own tokenizer, of texts as :mod:`.normalize` prepares them."""
    parses = truth.parses_special
    return (
        Mode(
            "without added special tokens",
            lambda text: truth.encode(text, None, False).ids,
            lambda text: vocab.native_tokens(text, add_special=False, parse_special=parses),
        ),
        Mode(
            "with added special tokens",
            lambda text: truth.encode(text, None, True).ids,
            lambda text: vocab.native_tokens(text, add_special=True, parse_special=parses),
        ),
    )


def modes(truth: Truth, vocab: Vocab) -> tuple[Mode, ...]:
    """The ways in which our runtime tokenizes with this file."""
    parses = truth.parses_special
    named = (
        Mode(
            "without added special tokens",
            lambda text: truth.encode(text, None, False).ids,
            lambda text: vocab.tokenize(text, add_special=False, parse_special=parses),
        ),
        Mode(
            "with added special tokens",
            lambda text: truth.encode(text, None, True).ids,
            lambda text: vocab.tokenize(text, add_special=True, parse_special=parses),
        ),
        Mode(
            "as plain text",
            lambda text: truth.plain(text, None, False).ids,
            lambda text: vocab.tokenize(text, add_special=False, parse_special=False),
            unless=truth.unspecial,
        ),
    )
    return named if parses else named[:2]


def compare(
    texts: Sequence[str], ways: Iterable[Mode], progress: Progress = silent, *, most: int | None = SHOWN
) -> Found:
    """``most``: after how many differing texts to end; None for never."""
    ways = tuple(ways)
    first: list[Difference] = []
    differing = index = 0
    for index, text in enumerate(texts, 1):
        difference = _difference(index - 1, text, ways)
        if difference is not None:
            differing += 1
            first += [difference] if len(first) < SHOWN else []
            if most is not None and differing >= most:
                break
        if index % 100 == 1:
            progress(STAGE, index - 1, len(texts))
    else:
        progress(STAGE, len(texts), len(texts))
    return Found(index, differing, tuple(first))


def compare_pairs(texts: Sequence[str], truth: Truth, vocab: Vocab) -> Found:
    """Pairs of texts: ids, segment ids and offsets together."""
    first: list[Difference] = []
    pairs = list(zip(texts[: -PAIRS - 1 : -1], texts[:PAIRS], strict=True))
    for index, (text, pair) in enumerate(pairs):
        theirs, ours = truth.encode(text, pair, True), vocab.encode(text, pair)
        if theirs != ours:
            first.append(Difference(index, "as a pair", f"{text}‖{pair}", theirs.ids, ours.ids))
    return Found(len(pairs), len(first), tuple(first[:SHOWN]))


def _difference(index: int, text: str, ways: Iterable[Mode]) -> Difference | None:
    for way in ways:
        if way.differs(text):
            return Difference(index, way.name, text, tuple(way.theirs(text)), tuple(way.ours(text)))
    return None
