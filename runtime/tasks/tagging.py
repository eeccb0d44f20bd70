"""Token classification: the parts of a text that are names, places, ..., as transformers' pipeline finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ...convert.errors import BadRequest
from ...convert.progress import Progress, silent
from ..abilities import TOKENS
from .head import Array, Head
from .heads import needed
from .scores import softmax
from .text import Encoded, TextTokenizer

if TYPE_CHECKING:
    from .encoder import Encoder

Aggregation = Literal["none", "simple", "first", "average", "max"]
AGGREGATIONS = get_args(Aggregation)


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text. entity: its label; without the ``B-`` or ``I-`` where tokens were grouped. start, end: in
    characters of the text. word: what its tokens read as. index: of the token in the text, where none were grouped."""

    entity: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Tagged:
    """The entities of one text; cut: tokens that were left out."""

    entities: tuple[Entity, ...]
    cut: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """One token: its probabilities, and whether it continues the word before it."""

    index: int
    word: str
    scores: Array
    start: int
    end: int
    continues: bool


def tag(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    aggregation: Aggregation = "none",
    ignore: Sequence[str] = ("O",),
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[Tagged]:
    """The entities of each text.

    aggregation: none gives each token; simple joins neighbours of one label; first, average and max decide for whole
    words before that, by the first token, the mean or the surest. ignore: labels that are no entities.

    Raises:
        UnsupportedModel: the model does not classify tokens, or its file has no tokenizer of its own.
        ContextLengthExceeded: a text is too long.
    """
    head = needed(encoder, TOKENS, "token-classification")
    if aggregation not in AGGREGATIONS:
        raise BadRequest(
            f"no aggregation {aggregation!r}", hint=f"choose one of {', '.join(AGGREGATIONS)}", param="aggregation"
        )
    tokenizer, length = encoder.text, encoder.length(truncate=truncate, max_length=max_length)
    marks_subwords = tokenizer.has_subwords
    encoded = encoder.encode_all(texts, length, progress)
    found = encoder.read(encoded, lambda states: softmax(head.run(states)), progress)
    results = []
    for text, tokens, scores in zip(texts, encoded, found, strict=True):
        pieces = list(_pieces(text, tokens, scores, tokenizer, marks_subwords))
        entities = _entities(pieces, head, aggregation, tokenizer)
        results.append(Tagged(tuple(entity for entity in entities if entity.entity not in ignore), tokens.cut))
    return results


def _pieces(
    text: str, tokens: Encoded, scores: Array, tokenizer: TextTokenizer, marks_subwords: bool
) -> Iterator[_Piece]:
    unknown = tokenizer.special_id("unknown")
    for index, (token, (start, end)) in enumerate(zip(tokens.ids, tokens.offsets, strict=True)):
        if tokens.special[index]:
            continue
        word, there = tokenizer.spelled(token), text[start:end]
        if token == unknown:
            yield _Piece(index, there, scores[index], start, end, False)
        elif marks_subwords:
            yield _Piece(index, word, scores[index], start, end, len(word) != len(there))
        else:
            continues = start > 0 and " " not in text[start - 1 : start + 1]
            yield _Piece(index, word, scores[index], start, end, continues)


def _entities(
    pieces: Sequence[_Piece], head: Head, aggregation: Aggregation, tokenizer: TextTokenizer
) -> Sequence[Entity]:
    if aggregation == "none":
        return [_of_piece(piece, head) for piece in pieces]
    if aggregation == "simple":
        parts = [_of_piece(piece, head) for piece in pieces]
    else:
        parts = [_of_word(word, head, aggregation, tokenizer) for word in _words(pieces)]
    return [_of_group(group, tokenizer) for group in _groups(parts)]


def _of_piece(piece: _Piece, head: Head) -> Entity:
    best = int(piece.scores.argmax())
    return Entity(head.labels[best], float(piece.scores[best]), piece.word, piece.start, piece.end, piece.index)


def _words(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if words and piece.continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def _of_word(word: Sequence[_Piece], head: Head, aggregation: Aggregation, tokenizer: TextTokenizer) -> Entity:
    if aggregation == "first":
        scores = word[0].scores
    elif aggregation == "max":
        scores = max(word, key=lambda piece: piece.scores.max()).scores
    else:
        scores = np.stack([piece.scores for piece in word]).mean(axis=0)
    best = int(scores.argmax())
    text = tokenizer.joined([piece.word for piece in word])
    return Entity(head.labels[best], float(scores[best]), text, word[0].start, word[-1].end)


def _groups(parts: Sequence[Entity]) -> list[list[Entity]]:
    """Neighbours of one label; ``B-`` begins a new group."""
    groups: list[list[Entity]] = []
    for part in parts:
        begins, kind = _kind(part.entity)
        if groups and not begins and kind == _kind(groups[-1][-1].entity)[1]:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _of_group(group: Sequence[Entity], tokenizer: TextTokenizer) -> Entity:
    score = float(np.mean([part.score for part in group]))
    word = tokenizer.joined([part.word for part in group])
    return Entity(group[0].entity.split("-", 1)[-1], score, word, group[0].start, group[-1].end)


def _kind(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and the label without that."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label
