"""A model for tasks: what a program embeds to classify, tag, answer, embed, rerank ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ...convert.errors import BadRequest
from ...convert.progress import Progress, silent
from .catalogue import TASKS
from .encoder import Encoder
from .heads import POOLED, possible, unfit


class TaskModel:
    """A loaded model and the tasks it can do. Safe to use from several threads; a context manager.

        with TaskModel.load("org/name") as model:
            print(model.tasks)
            print(model.task("text-classification", "What a lovely day."))

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.encoder = Encoder(path, threads=threads)

    @classmethod
    def load(cls, name: str | Path, *, threads: int | None = None, progress: Progress = silent) -> TaskModel:
        """Load by name, as :meth:`Model.load` does: fetched, converted and proven first if it is not here yet."""
        from ..store.build import obtain
        from ..store.store import Store

        place = str(name.absolute()) if isinstance(name, Path) else name
        return cls(obtain(place, Store(), progress=progress).path, threads=threads)

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model can do, what it was made for first."""
        return possible(self.encoder)

    def task(
        self,
        name: str,
        inputs: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
        *,
        progress: Progress = silent,
        **parameters: Any,
    ) -> Any:
        """The result for one input, or a list of them for a list, in its order; see docs/tasks.md for each task.

        Raises:
            BadRequest: no such task, or it takes no such input or parameter. UnsupportedModel: the model cannot do it.
            ContextLengthExceeded: a text is too long, and ``truncate`` was not asked for.
        """
        task = TASKS.get(name)
        if task is None:
            raise BadRequest(f"there is no task {name!r}", hint=f"there are {', '.join(TASKS)}", param="task")
        if name not in self.tasks and not (name in POOLED and parameters.get("pooling")):
            raise unfit(self.encoder, name)
        settings = task.settings(parameters)
        single = isinstance(inputs, str | Mapping)
        given = task.inputs([inputs] if single else list(inputs))
        results = task.run(self.encoder, given, settings, progress)
        return results[0] if single else results

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        self.encoder.close()

    def __enter__(self) -> TaskModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
