"""One answer being written, as the scheduler sees it: tokens known, and how many of them were computed. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass

from .priority import BACKGROUND, NORMAL

REALM_SHIFT = 32  # above all token ids


@dataclass(frozen=True, slots=True)
class Span:
    """``count`` tokens from ``start`` that are the rows of a picture, computed in a step of their own.

    positions: by how much the next token is further on; other than ``count`` where positions are those of a grid.
    picture: what the loop computes them from.
    """

    start: int
    count: int
    positions: int
    picture: object


@dataclass(eq=False, slots=True)
class Sequence:
    """One answer being written. ``tokens``: the prompt and what was generated; ``computed`` of them lie in the cache.

    spans: pictures among the tokens, in order.

    committed: tokens that the prefix cache knows (a prefix of the computed ones).
    cached: prompt tokens that were there already when the sequence first started.
    skipped: steps in which it was running but got no row.
    group: which adapters it is computed with. Groups share no steps.
    realm: which adapters, and whose it is. Realms share no cells.
    rank: of its priority.
    """

    tokens: list[int]
    num_prompt: int
    spans: tuple[Span, ...] = ()
    slot: int = -1
    computed: int = 0
    committed: int = 0
    cached: int | None = None
    skipped: int = 0
    group: int = 0
    rank: int = NORMAL
    realm: int = 0

    def keys(self, start: int = 0, end: int | None = None) -> list[int]:
        """The tokens as the prefix cache knows them: those of another realm are others."""
        tokens = self.tokens[start:end]
        return [token + (self.realm << REALM_SHIFT) for token in tokens] if self.realm else tokens

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        return self.pending == 1 and self.computed >= self.num_prompt

    @property
    def gives_way(self) -> bool:
        return self.rank >= BACKGROUND

    @property
    def private(self) -> int:
        """Cells of its own, outside the prefix cache."""
        return self.computed - self.committed

    @property
    def shares(self) -> bool:
        """Whether each token has its index as its position, so that its cells can be others', too."""
        return all(span.positions == span.count for span in self.spans)

    @property
    def position(self) -> int:
        """Of the next token to compute."""
        if not self.spans:
            return self.computed
        return self.computed + sum(span.positions - span.count for span in self.spans if span.start < self.computed)

    @property
    def span(self) -> Span | None:
        """The picture that is to be computed next, if one is."""
        return next((span for span in self.spans if span.start == self.computed), None)

    @property
    def readable(self) -> int:
        """Pending tokens before the next picture."""
        ahead = (span.start for span in self.spans if span.start >= self.computed)
        return min(ahead, default=len(self.tokens)) - self.computed

    def whole(self, length: int) -> int:
        """The first tokens, ``length`` at most, that end within no picture."""
        return next((span.start for span in self.spans if span.start < length < span.start + span.count), length)


@dataclass(frozen=True, slots=True)
class Row:
    """``count`` tokens of a sequence to compute now; ``output`` when the last one's logits choose the next token.

    draft: tokens, counted, that it does not have yet but probably will: the logits of each row are then wanted.
    """

    sequence: Sequence
    count: int
    output: bool
    draft: tuple[int, ...] = ()
