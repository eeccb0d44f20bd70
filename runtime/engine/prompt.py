"""A request's prompt as tokens, pictures included: their rows stand among the ids under numbers of their own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ...convert.errors import BadRequest
from .. import picture
from ..llama.projector import Chunk, NativeProjector, Piece
from ..llama.vocab import Vocab
from ..request import Request
from .sequence import Span

MOST_ROWS = 1 << 24
"""Rows of one chunk of a picture, more than any can have."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """``tokens``: ids, and negative numbers for the rows of the pictures in ``spans``."""

    tokens: list[int]
    spans: tuple[Span, ...] = ()


def read(request: Request, vocab: Vocab, projector: NativeProjector | None) -> Prompt:
    """The tokens of a request. Decodes and cuts its pictures, which takes a while.

    Raises:
        BadRequest: a token id is none, a picture cannot be read, or pictures and the places for them are not as many.
    """
    if not isinstance(request.prompt, str):
        if request.images:
            raise BadRequest("pictures need a prompt of text", param=request.images[0].where)
        for token in request.prompt:
            vocab.piece(token)
        return Prompt(list(request.prompt))
    if not request.images:
        return Prompt(_tokenized(_pieces(request), request, vocab))
    if projector is None:
        raise BadRequest(
            f"{request.images[0].where}: this model reads no pictures",
            hint="a vision model needs its projector: --mmproj FILE",
            param=request.images[0].where,
        )
    before, after = projector.around
    mark = request.image_text
    wrapped = [piece.replace(mark, f"{before}{mark}{after}") if mark else piece for piece in _pieces(request)]
    places = _split(_tokenized(wrapped, request, vocab), vocab.tokenize(mark, add_special=False, parse_special=True))
    if len(places) - 1 != len(request.images):
        raise BadRequest(
            f"the prompt has {len(places) - 1} places for {len(request.images)} pictures",
            hint=f"a message must not contain the text {mark!r}" if mark else "",
            param=request.images[0].where,
        )
    pieces = [projector.cut(picture.decode(image.data, image.where), image.where) for image in request.images]
    return _joined(places, pieces)


def _pieces(request: Request) -> list[str]:
    """The prompt between its cuts. A cut goes through what is only the text of a mark, so that it is none."""
    text = str(request.prompt)
    return [text[begin:end] for begin, end in itertools.pairwise((0, *request.cuts, len(text)))]


def _tokenized(pieces: list[str], request: Request, vocab: Vocab) -> list[int]:
    tokens: list[int] = []
    for index, piece in enumerate(pieces):
        tokens += vocab.tokenize(
            piece,
            add_special=request.add_special and index == 0,
            parse_special=request.parse_special,
            continues=index > 0,
        )
    return tokens


def _split(tokens: list[int], mark: list[int]) -> list[list[int]]:
    """The tokens between the places where ``mark`` stands."""
    parts: list[list[int]] = [[]]
    at = 0
    while at < len(tokens):
        if mark and tokens[at : at + len(mark)] == mark:
            parts.append([])
            at += len(mark)
        else:
            parts[-1].append(tokens[at])
            at += 1
    return parts


def _joined(places: list[list[int]], pictures: list[list[Piece]]) -> Prompt:
    tokens = list(places[0])
    spans: list[Span] = []
    for pieces, text in zip(pictures, places[1:], strict=True):
        for piece in pieces:
            if isinstance(piece, Chunk):
                spans.append(Span(len(tokens), piece.num_rows, piece.num_positions, piece))
                tokens += row_numbers(piece)
            else:
                tokens += piece
        tokens += text
    return Prompt(tokens, tuple(spans))


def row_numbers(chunk: Chunk) -> list[int]:
    """A number for each row, which only the same row of the same picture has: what the prefix cache knows it by."""
    first = int.from_bytes(chunk.digest, "little") * MOST_ROWS
    return [-1 - first - row for row in range(chunk.num_rows)]
