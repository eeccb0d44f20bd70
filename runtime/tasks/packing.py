"""Which texts are computed together. Arithmetic over lengths; no model.

Tokens of one step all pass through every attention matrix, whoever they belong to, so a step has a budget; and texts
of like length come together, for nothing is padded but a step is as long as its sum.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP_TOKENS = 512


def steps(lengths: Sequence[int], most_texts: int, tokens: int = STEP_TOKENS) -> list[list[int]]:
    """The texts of each step by their index, the longest first.

    A step has up to ``most_texts`` texts of ``tokens`` tokens together; a longer text has one of its own.
    """
    found: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not found or lengths[index] > room or len(found[-1]) == most_texts:
            found.append([])
            room = tokens
        found[-1].append(index)
        room -= lengths[index]
    return found
