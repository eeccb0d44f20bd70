"""Which texts are computed together. Arithmetic over lengths; no model.

Texts of like length come together, since a step is done when its longest text is. A step has a budget of tokens:
without flash attention every token of it is compared with every other, whoever they belong to, and masked afterwards,
which soon costs more than what larger steps save.
"""

from __future__ import annotations

from collections.abc import Sequence

STEP_TOKENS, FLASH_STEP_TOKENS = 64, 256
"""Measured on a model of 384 dimensions: without flash attention steps of 512 tokens take twice the time of 64; with it
256 are 10 % quicker than 128, and 17 % than 512."""


LAYERS_STEP_TOKENS, LAYERS_STEPS = 256, 4
"""Of the compiled layers, which compare no text with another; and how many steps a thread may take before others' work
gets its turn: with more of them the threads end nearer to each other."""


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


def rounds(lengths: Sequence[int], most_texts: int, tokens: int, readers: int, each: int = 1) -> list[list[list[int]]]:
    """The steps, in groups of up to ``each`` a reader that are read side by side. A text longer than ``tokens`` has a
    group of its own; what is little enough for a step of each reader is spread over all readers."""
    spread = _spread(lengths, readers)
    if all(sum(lengths[index] for index in step) <= tokens and len(step) <= most_texts for step in spread):
        return [spread] if spread else []
    found: list[list[list[int]]] = []
    for step in steps(lengths, most_texts, tokens):
        alone = lengths[step[0]] > tokens
        if not found or alone or len(found[-1]) == readers * each or lengths[found[-1][0][0]] > tokens:
            found.append([])
        found[-1].append(step)
    return found


def _spread(lengths: Sequence[int], readers: int) -> list[list[int]]:
    """As evenly as it goes when each text, the longest first, goes where the fewest tokens are."""
    shares: list[list[int]] = [[] for _ in range(readers)]
    loads = [0] * readers
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += lengths[index]
    return [share for share in shares if share]
