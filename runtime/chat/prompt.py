"""A conversation as a model reads it, and its answer as it must be read."""

from __future__ import annotations

from dataclasses import dataclass

from .reader import Reading


@dataclass(frozen=True, slots=True)
class Prompt:
    """cuts: places in the text that no token may reach across. grammar: empty where the answer is free; ``param`` names
    the field of the request that it comes from."""

    text: str
    cuts: tuple[int, ...]
    reading: Reading
    grammar: str = ""
    param: str = ""
