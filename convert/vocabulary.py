"""A vocabulary on its way into a GGUF file: a token per embedding row, and what else the tokenizer needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np

from .gguf import Value
from .report import Item

PRE_KEY = "tokenizer.ggml.pre"
DOCUMENT_KEY = "tokenizer.huggingface.json"
LIBRARY_KEY = "ingle.tokenizer.library"
LIBRARY = "tokenizers"
VERDICT_KEY = "ingle.tokenizer.verdict"
"""What a trial found about llama.cpp's own tokenizer: ``exact``, or ``known: ...``."""


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``. The numbers are sentencepiece's, too."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Token:
    """``score`` is a log probability (Unigram) or minus a merge rank (SentencePiece-style BPE); else 0."""

    text: str
    type: TokenType = TokenType.NORMAL
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token matched in the text before the model sees it. ``lstrip``/``rstrip``: it swallows the space beside it;
    ``single_word``: it is not found inside words."""

    id: int
    text: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    @classmethod
    def of(cls, token_id: int, entry: Mapping[str, Any]) -> AddedToken:
        """From an entry of ``added_tokens`` (tokenizer.json) or ``added_tokens_decoder`` (tokenizer_config.json)."""
        flags = {name: bool(entry.get(name)) for name in ("special", "lstrip", "rstrip", "single_word")}
        return cls(token_id, entry["content"], **flags)

    @property
    def type(self) -> TokenType:
        return TokenType.CONTROL if self.special else TokenType.USER_DEFINED


@dataclass(frozen=True, slots=True)
class TokenModel:
    """How text becomes tokens, read from one of the files that can say so.

    kind: ``tokenizer.ggml.model``. tokens: by id. added: tokens beside the model's own. settings: metadata that this
    kind needs. pre_candidates: the ``tokenizer.ggml.pre`` names that fit, likeliest first (byte-level BPE only).
    around: ids that the tokenizer puts before and after a text. between: ids between two texts.
    described: whether there is a tokenizer.json, or older files that say as much.
    """

    kind: str
    tokens: Mapping[int, Token]
    added: tuple[AddedToken, ...]
    settings: Mapping[str, Value]
    around: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    between: tuple[int, ...] = ()
    pre_candidates: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    described: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All ``tokenizer.*`` and ``ingle.*`` metadata of a checkpoint's tokenizer, and what a check says about it.

    When an item says ``fail``, the metadata is not fit to be written. Where ``pre_candidates`` are names that metadata
    does not choose from, nothing but trying them tells which one is right (:meth:`with_pre`).
    described: whether there is a tokenizer.json that the file could hold (``tokenizer.document``).
    """

    metadata: Mapping[str, Value]
    items: tuple[Item, ...]
    pre_candidates: tuple[str, ...] = ()
    described: bool = False

    @property
    def embeds(self) -> bool:
        """Whether our runtime tokenizes with the tokenizer.json itself, which the metadata holds."""
        return LIBRARY_KEY in self.metadata

    @property
    def undecided(self) -> bool:
        """Whether a ``tokenizer.ggml.pre`` is still to be chosen."""
        return bool(self.pre_candidates) and PRE_KEY not in self.metadata

    def with_pre(self, name: str) -> Vocabulary:
        return replace(self, metadata={**self.metadata, PRE_KEY: name})

    def with_document(self, document: str) -> Vocabulary:
        """The same, tokenized by our runtime as the tokenizer.json says, whatever llama.cpp makes of it."""
        return replace(self, metadata={**self.metadata, DOCUMENT_KEY: document, LIBRARY_KEY: LIBRARY})


def fill(model: TokenModel, vocab_size: int) -> tuple[list[Token], list[Item]]:
    """The tokens of ids 0 to ``vocab_size`` - 1: holes are filled, and what has no embedding row is left out."""
    tokens = {**model.tokens, **{added.id: _with_added(model.tokens.get(added.id), added) for added in model.added}}
    taken = {token.text for token in tokens.values()}
    table = [
        tokens.get(token_id) or Token(_pad_text(token_id, taken), TokenType.UNUSED) for token_id in range(vocab_size)
    ]
    return table, [*_surplus(model, vocab_size), *_conflicts(model), *_unfit_texts(table)]


def arrays(tokens: Sequence[Token], scored: bool) -> dict[str, Value]:
    """The parallel arrays of ``tokenizer.ggml``: texts, types, and scores where the model uses them."""
    metadata: dict[str, Value] = {
        "tokenizer.ggml.tokens": [token.text for token in tokens],
        "tokenizer.ggml.token_type": np.array([token.type for token in tokens], np.int32),
    }
    if scored:
        metadata["tokenizer.ggml.scores"] = np.array([token.score for token in tokens], np.float32)
    return metadata


def _with_added(piece: Token | None, added: AddedToken) -> Token:
    """A piece that is an added token as well. ``unk`` and byte tokens stay what they are; so does a piece with the
    space marker, which only a normal token shows as a space when it is decoded."""
    if piece is None:
        return Token(added.text, added.type)
    if piece.type in (TokenType.UNKNOWN, TokenType.BYTE) or (not added.special and "▁" in piece.text):
        return piece
    return Token(piece.text, added.type, piece.score)


def _pad_text(token_id: int, taken: set[str]) -> str:
    text = f"[PAD{token_id}]"
    while text in taken:
        text = f"[{text}]"
    return text


def _surplus(model: TokenModel, vocab_size: int) -> Iterable[Item]:
    """Tokens beyond the embedding table: an added one can be left out (it never had a vector), a piece cannot."""
    pieces = [token.text for token_id, token in model.tokens.items() if token_id >= vocab_size]
    if pieces:
        yield Item("vocabulary", "fail", f"{len(pieces)} pieces have no row among the {vocab_size} embeddings")
    added = [token.text for token in model.added if token.id >= vocab_size and token.id not in model.tokens]
    if added:
        yield Item(
            "vocabulary", "warn", f"left out, as there is no embedding row for them: {', '.join(map(repr, added))}"
        )


def _conflicts(model: TokenModel) -> Iterable[Item]:
    for added in model.added:
        piece = model.tokens.get(added.id)
        if piece is not None and piece.text != added.text:
            yield Item("vocabulary", "fail", f"id {added.id} is both {piece.text!r} and the added {added.text!r}")


def _unfit_texts(table: Sequence[Token]) -> Iterable[Item]:
    """llama.cpp ends the process when two tokens share a text, and reads texts as C strings."""
    repeated = [text for text, number in Counter(token.text for token in table).items() if number > 1]
    if repeated:
        ids = [token_id for token_id, token in enumerate(table) if token.text == repeated[0]]
        yield Item("vocabulary", "fail", f"{len(repeated)} texts occur twice, {repeated[0]!r} as ids {ids}")
    if any("\0" in token.text for token in table):
        yield Item("vocabulary", "fail", "a token holds a NUL character, which a GGUF vocabulary cannot carry")
