"""The rows of a step as llama.cpp takes them."""

from __future__ import annotations

from ...convert.errors import EngineError
from ..llama.context import Context, PictureRows, Rows
from ..llama.projector import Chunk, NativeProjector
from .sequence import Row, Span


def compute(context: Context, rows: list[Row], projector: NativeProjector | None) -> dict[int, int]:
    """The index of each wanted row of logits, by slot; a picture is alone in its step."""
    picture = rows[0].sequence.span
    if picture is None or projector is None:
        return context.decode([native(row) for row in rows])
    return context.decode_picture(picture_rows(rows[0], picture, projector))


def native(row: Row) -> Rows:
    sequence = row.sequence
    tokens = sequence.tokens[sequence.computed : sequence.computed + row.count]
    return Rows(sequence.slot, sequence.position, [*tokens, *row.draft], row.output, bool(row.draft))


def picture_rows(row: Row, span: Span, projector: NativeProjector) -> PictureRows:
    chunk = span.picture
    if not isinstance(chunk, Chunk):
        raise EngineError(f"a {type(chunk).__name__} is no picture")
    values, together = projector.rows(chunk), projector.non_causal
    return PictureRows(row.sequence.slot, row.sequence.position, values, chunk.grid, together, row.output)
