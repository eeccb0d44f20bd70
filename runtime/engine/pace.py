"""How much of a prompt a step may carry while others wait for their next token: learned from the steps before.

A step of ``rows`` rows takes about ``lone + rows * row``: what the decoding sequences need by themselves, and what each
row of a prompt adds. Both are followed as they change with the context and with what else the machine does. On a CPU
chunks of 64 rows are read as fast as larger ones, so a prompt loses little where its chunks get small. Pure Python.
"""

from __future__ import annotations

from dataclasses import dataclass

GRAIN = 16
"""Rows that the kernels compute together: fewer cost as much."""

CHUNK = 64
"""Rows from which llama.cpp's flash attention reads the cache in tiles: at 32 a prompt of SmolLM-135M takes 1.6
times as long."""

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
            if prompt_rows >= CHUNK or not self.row_s or row_s < self.row_s:  # small chunks say nothing of large ones
                self.row_s = _follow(self.row_s, row_s)

    def prompt_rows(self, decoding: int, most: int) -> int:
        """Rows of prompts that the next step may carry beside ``decoding`` others, ``most`` at most.

        Fewer than :data:`CHUNK` only where these take too long by far, and never fewer than :data:`GRAIN`, so that a
        prompt gets on however slow the machine is.
        """
        if not decoding or not self.target_s or not self.row_s:
            return most
        affordable = int((self.target_s - self.lone_s) / self.row_s) // GRAIN * GRAIN
        least = CHUNK if self.lone_s + CHUNK * self.row_s <= STRETCH * self.target_s else GRAIN
        return min(most, max(least, affordable))


def _follow(believed: float, seen: float) -> float:
    return seen if not believed else believed + WEIGHT * (seen - believed)
