"""Where the importance matrix of a quantization comes from: a file, a text to collect it on, or nowhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..store import stages
from .display import progress_bar

if TYPE_CHECKING:
    from ...quantize import Choices

AUTO = "auto"
FILE, CORPUS = "ingle.imatrix.sha256", "ingle.imatrix.corpus_sha256"
"""What a file says of the matrix it was quantized with."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What ``--imatrix`` and ``--on`` say. ``threads``: of the model that reads the text."""

    file: str | None
    on: Path | None
    threads: int | None

    def __post_init__(self) -> None:
        if (self.file == AUTO) != (self.on is not None):
            raise click.UsageError("--imatrix auto and --on TEXT belong together")

    @property
    def collects(self) -> bool:
        """Whether a model must run for it."""
        return self.on is not None

    def added(self, choices: Choices, model: Path | None) -> Choices:
        """``choices`` with the matrix, collected first with ``model`` if it must be."""
        if self.file is None:
            return choices
        from ...quantize import Imatrix

        path = _collected(model, self.on, self.threads) if model and self.on else Path(self.file)
        return replace(choices, imatrix=Imatrix.load(path))

    def for_build(self) -> stages.Importance | None:
        """The same for the store, which may have to build a model to collect it with."""
        if self.file is None:
            return None
        from ...quantize import Imatrix
        from ..measure.passage import contents

        if self.on is not None:
            on, threads = self.on, self.threads
            corpus = hashlib.sha256(contents(on)).hexdigest()
            return stages.Importance(
                label=corpus,
                needs_model=True,
                load=lambda model: Imatrix.load(_collected(model or Path(), on, threads)),
                made=lambda metadata: metadata.get(CORPUS) == corpus,
            )
        matrix = Imatrix.load(Path(self.file))
        return stages.Importance(
            label=matrix.sha256,
            needs_model=False,
            load=lambda model: matrix,
            made=lambda metadata: metadata.get(FILE) == matrix.sha256,
        )


def _collected(model: Path, on: Path, threads: int | None) -> Path:
    from ..measure.activations import kept
    from ..measure.wish import Wish

    with progress_bar() as progress:
        return kept(model, Wish(on, threads=threads), progress)
