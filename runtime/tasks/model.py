"""A model for tasks: what a program embeds to classify, tag, answer, embed, rerank ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ...convert import gguf
from ...convert.errors import BadRequest, EngineClosed, UnsupportedModel
from ...convert.progress import Progress, silent
from ..abilities import POOLED
from ..request import ModelInfo, Sampling
from .catalogue import TASKS
from .encoder import Encoder
from .head import KEY as HEAD
from .heads import possible, unfit
from .seq2seq import Seq2Seq
from .task import Settings, Task
from .text_stream import Tell, TextStream
from .work import Work
from .writing import WRITING

READERS = (
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "t5encoder",
)
"""llama.cpp's architectures that write nothing."""

Inputs = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""One input or several: a text, or an object with the task's fields."""


class TaskModel:
    """A loaded model and the tasks it can do. Safe to use from several threads; a context manager.

        with TaskModel.load("org/name") as model:
            print(model.tasks)
            print(model.task("text-classification", "What a lovely day."))

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self._model = Seq2Seq(path, threads=threads) if _writes(path) else Encoder(path, threads=threads)

    @classmethod
    def load(cls, name: str | Path, *, threads: int | None = None, progress: Progress = silent) -> TaskModel:
        """Load by name, as :meth:`Model.load` does: fetched, converted and proven first if it is not here yet."""
        from ..store.build import obtain
        from ..store.store import Store

        place = str(name.absolute()) if isinstance(name, Path) else name
        return cls(obtain(place, Store(), progress=progress).path, threads=threads)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model can do, what it was made for first."""
        return possible(self._model) if isinstance(self._model, Encoder) else tuple(task.name for task in WRITING)

    @property
    def info(self) -> ModelInfo:
        """What the file says of the model; it has no cells, and no window but the longest text."""
        model, longest = self._model.model, self._model.longest_text
        return ModelInfo(
            name=model.name,
            path=str(model.path),
            architecture=model.architecture,
            parameters=model.parameters,
            size_bytes=model.size_bytes,
            vocabulary=model.vocab.size,
            context_trained=model.context_trained,
            context_length=longest,
            context_reason="the longest text it reads",
            kv_cells=0,
            kv_bytes=0,
            flash_attention="off",
            parallel=1,
            threads=self._model.threads,
            threads_prefill=self._model.threads,
            gpu_layers=model.gpu_layers,
            chat_templates={},
            special_tokens={},
            eog_tokens=(),
            sampling=Sampling(),
        )

    @property
    def alive(self) -> bool:
        return not self._model.closed

    def task(self, name: str, inputs: Inputs, /, **parameters: Any) -> Any:
        """The result for one input, or a list of them for a list, in its order; see docs/tasks.md for each task.

        Raises:
            BadRequest: no such task, or it takes no such input or parameter. UnsupportedModel: the model cannot do it.
            ContextLengthExceeded: a text is too long, and ``truncate`` was not asked for.
        """
        return self.run(name, inputs, parameters)

    def run(
        self, name: str, inputs: Inputs, parameters: Mapping[str, Any] | None = None, progress: Progress = silent
    ) -> Any:
        """The same as :meth:`task`; ``progress`` hears how far it is."""
        task, settings = self._prepared(name, parameters)
        single = isinstance(inputs, str | Mapping)
        results = task.run(self._model, task.inputs([inputs] if single else list(inputs)), settings, progress)
        return results[0] if single else results

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text, as :meth:`Model.tokenize` gives them."""
        self._require_open()
        return self._model.text.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of tokens; control tokens show only if ``special``. Raises :class:`BadRequest` for no such token."""
        self._require_open()
        size = self._model.model.vocab.size
        if (wrong := next((token for token in tokens if not 0 <= token < size), None)) is not None:
            raise BadRequest(f"{wrong} is not a token id of this model (0 to {size - 1})", param="tokens")
        return self._model.text.decode(list(tokens), special=special)

    def stream(self, name: str, one: str | Mapping[str, Any], /, **parameters: Any) -> TextStream:
        """The answer to one input while it is being written, greedily or drawn; for the tasks that write.

            with model.stream("summarization", text) as pieces:
                for piece in pieces:
                    print(piece, end="", flush=True)

        Raises:
            What :meth:`task` does; some of it when the pieces are read.
        """
        self._prepared(name, parameters)
        work = Work()
        return TextStream(lambda tell: self.tell(name, one, parameters, tell, work), lambda: self._model.give_up(work))

    def tell(
        self,
        name: str,
        one: str | Mapping[str, Any],
        parameters: Mapping[str, Any] | None,
        tell: Tell,
        progress: Progress = silent,
    ) -> Any:
        """The result for one input; ``tell`` hears its text while it is being written."""
        task, settings = self._prepared(name, parameters)
        if task.stream is None:
            able = ", ".join(task.name for task in TASKS.values() if task.stream)
            raise BadRequest(f"{name} has nothing to stream", hint=f"{able} have", param="stream")
        return task.stream(self._model, task.inputs([one])[0], settings, progress, tell)

    def _prepared(self, name: str, parameters: Mapping[str, Any] | None) -> tuple[Task, Settings]:
        self._require_open()
        task = TASKS.get(name)
        if task is None:
            raise BadRequest(f"there is no task {name!r}", hint=f"there are {', '.join(TASKS)}", param="task")
        given = dict(parameters or {})
        self._check(task, given)
        return task, task.settings(given)

    def give_up(self, work: Work) -> None:
        """End what reports to ``work`` with :class:`Cancelled`, wherever it is."""
        self._model.give_up(work)

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        self._model.close()

    def _require_open(self) -> None:
        if not self.alive:
            raise EngineClosed(f"{self.name} is closed")

    def _check(self, task: Task, parameters: Mapping[str, Any]) -> None:
        if isinstance(self._model, Encoder) and not task.writes:
            if task.name not in self.tasks and not (task.name in POOLED and parameters.get("pooling")):
                raise unfit(self._model, task.name)
        elif task.name not in self.tasks:
            kind = "reads texts" if isinstance(self._model, Encoder) else "reads a text and writes another"
            raise UnsupportedModel(
                f"{self.name} cannot do {task.name}: it {kind}", hint=f"it can do {', '.join(self.tasks)}"
            )

    def __enter__(self) -> TaskModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_for_tasks(path: Path) -> bool:
    """Whether a file's model is made for tasks, not to continue texts."""
    metadata = gguf.read(path).metadata
    arch = metadata.get("general.architecture")
    pooled = metadata.get(f"{arch}.pooling_type", 0) != 0
    return f"{HEAD}.task" in metadata or arch in READERS or pooled or _writes(path)


def _writes(path: Path) -> bool:
    """Whether a file is an encoder-decoder."""
    metadata = gguf.read(path).metadata
    return f"{metadata.get('general.architecture')}.decoder_start_token_id" in metadata
