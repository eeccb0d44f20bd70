"""How much of a prompt a step may carry while others wait for their next token: learned from the steps before.

A step of ``rows`` rows takes about ``lone + rows * row``: what the decoding sequences need by themselves, and what
each row of a prompt adds. Both are followed as they change with the context and with what else the machine does. Pure
Python.
"""

from __future__ import annotations

from dataclasses import dataclass

GRAIN = 16
"""Rows that the kernels compute together: fewer cost as much."""

TILE = 64
"""Rows of one tile of llama.cpp's flash attention (GGML_FA_TILE_Q), which is computed whole where one row more begins
it, and which a step of fewer rows does without: then SmolLM-135M takes 1.4 times as long for a row, 2,000 tokens on."""

LEAST_TILES = 3
"""Of a chunk, where time allows: a prompt read in steps of one tile takes 1.4 times as long as in large ones, of two
1.2 times, of three 1.06 times, for the threads share out the attention in pieces that cut tiles in two."""

STRETCH = 2
"""Times the target that a step may take before chunks get smaller than that."""

WEIGHT = 0.3
"""Of the newest step in what is believed."""


@dataclass(eq=False, slots=True)
class Pace:
    """target_s: the longest that a running stream should wait for a token, 0 for as long as it takes."""

    target_s: float
    lone_s: float = 0.0
    row_s: float = 0.0

    @property
    def learned(self) -> tuple[float, float]:
        """Seconds of a step without prompts, and of each row of one; 0 for what was not seen yet."""
        return self.lone_s, self.row_s

    def observe(self, decoding: int, prompt_rows: int, seconds: float) -> None:
        """A step took so long. ``decoding`` rows of it belonged to running streams."""
        if prompt_rows == 0:
            self.lone_s = _follow(self.lone_s, seconds)
        elif prompt_rows >= GRAIN:
            alone = min(self.lone_s, seconds) if decoding else 0.0
            row_s = (seconds - alone) / prompt_rows
            whole = decoding + prompt_rows >= TILE  # smaller steps say nothing of larger ones
            if whole or not self.row_s or row_s < self.row_s:
                self.row_s = _follow(self.row_s, row_s)

    def prompt_rows(self, waiting: int, most: int, left: int = 0) -> int:
        """Rows of prompts that may be computed, ``most`` at most, between two tokens of ``waiting`` others.

        Fewer than :data:`LEAST_TILES` only where these take too long by far, and never fewer than :data:`GRAIN`, so
        that a prompt gets on however slow the machine is. ``left``: rows of a prompt that is read to its end at once,
        rather than in a chunk and a small one, where that takes no longer than a chunk may be stretched to.
        """
        if not waiting or not self.target_s or not self.row_s:
            return most
        affordable = int((self.target_s - self.lone_s) / self.row_s)
        rows = max(affordable, self._least()) // GRAIN * GRAIN
        if rows < left <= most and self._lasts(left) <= STRETCH * self.target_s:
            return left
        return min(most, rows if rows < TILE else rows // TILE * TILE)

    def _lasts(self, rows: int) -> float:
        return self.lone_s + rows * self.row_s

    def _least(self) -> int:
        for tiles in range(LEAST_TILES, 0, -1):
            if self._lasts(tiles * TILE) <= STRETCH * self.target_s:
                return tiles * TILE
        return GRAIN


def _follow(believed: float, seen: float) -> float:
    return seen if not believed else believed + WEIGHT * (seen - believed)
