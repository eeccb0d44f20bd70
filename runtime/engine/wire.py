"""What the two processes of an engine say to each other. Picklable; both ends are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...convert.errors import IngleError
from ..options import LoadOptions
from ..request import ModelInfo, Request
from .stream import Event


@dataclass(frozen=True, slots=True)
class Load:
    """First message to the child: what to load."""

    path: str
    options: LoadOptions


@dataclass(frozen=True, slots=True)
class Loaded:
    """First message from the child: the model is ready, or why it is not."""

    outcome: ModelInfo | IngleError


@dataclass(frozen=True, slots=True)
class Submit:
    stream: int
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    stream: int


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the engine to be answered at once with :class:`Answer`."""

    id: int
    method: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    id: int
    outcome: Any


@dataclass(frozen=True, slots=True)
class Events:
    """Events of streams, in order."""

    events: tuple[tuple[int, Event], ...]


CALLABLE = frozenset({"tokenize", "detokenize", "stats"})
"""Engine methods that a :class:`Call` may name."""
