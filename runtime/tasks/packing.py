"""Which texts are computed together. Arithmetic over lengths; no model.

Texts of like length come together, since a step is done when its longest text is. A step has a budget of tokens:
without flash attention every token of it is compared with every other, whoever they belong to, and masked afterwards,
which soon costs more than what larger steps save.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP_TOKENS, FLASH_STEP_TOKENS = 64, 512
"""Measured on a model of 384 dimensions: without flash attention steps of 512 tokens take twice the time of 64."""


def steps(lengths: Sequence[int], most_texts: int, tokens: int) -> list[list[int]]:
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
