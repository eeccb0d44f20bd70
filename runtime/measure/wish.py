"""What a model is to be run on, and the model itself, loaded and found fit."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ...convert.errors import UnsupportedModel
from ..llama.model import NativeModel


@dataclass(frozen=True, slots=True)
class Wish:
    """What to read. length: tokens of a chunk, or the most of a record; most: only the first so many passages."""

    on: Path
    length: int | None = None
    most: int | None = None
    threads: int | None = None


def loaded(path: Path, stack: ExitStack) -> NativeModel:
    """A model that predicts next tokens, closed with ``stack``.

    Raises:
        UnsupportedModel: it predicts none. BadGGUF, LoadFailed: it cannot be loaded.
    """
    model = NativeModel(path)
    stack.callback(model.close)
    if not model.generates:
        raise UnsupportedModel(f"{path} predicts no next tokens: it is an encoder, has one, or has another head")
    return model
