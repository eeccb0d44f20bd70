"""Where the last words of a text stand in it before, and how it went on there. Pure Python, constant time a token.

It is followed whether or not anybody computes with what it foretells: how many tokens in a row it has foretold right
says how likely it is to be right about the next ones.
"""

from __future__ import annotations

from collections.abc import Iterator

WORDS = 3
"""Tokens that must be the same."""

_BITS = 21  # of a token id


class Lookup:
    """Of one sequence. ``tokens`` is its list, to which each token is appended before :meth:`saw` is called.

    streak: tokens in a row that were foretold.
    """

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens
        self._ends: dict[int, int] = {}
        self._next = -1
        self._indexed = False
        self.streak = 0

    def saw(self) -> None:
        """A token was appended."""
        tokens, end = self._tokens, len(self._tokens)
        if not self._indexed:
            self._ends.update(_ends(tokens[:-1]))
            self._indexed = True
        elif self._next >= 0 and tokens[self._next] == tokens[-1]:
            self.streak += 1
            self._next += 1
        else:
            self.streak, self._next = 0, -1
        if end >= WORDS:
            key = _key(*tokens[-WORDS:])
            if self._next < 0:
                self._next = self._ends.get(key, -1)
            self._ends[key] = end

    def foretold(self, count: int) -> list[int]:
        """The next ``count`` tokens, if the text goes on as it did there; none where its last words are new, or a
        picture came then. Where the end of the text is reached it is repeated, as it was repeated so far."""
        period = self._tokens[self._next : self._next + count] if self._next >= 0 else []
        if not period or min(period) < 0:
            return []
        return (period * (-(-count // len(period))))[:count]


def _ends(tokens: list[int]) -> Iterator[tuple[int, int]]:
    """Each few tokens in a row, and where they end. A later place replaces an earlier one."""
    return (
        (_key(first, second, third), place + WORDS)
        for place, (first, second, third) in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False))
    )


def _key(first: int, second: int, third: int) -> int:
    return (first << 2 * _BITS) + (second << _BITS) + third
