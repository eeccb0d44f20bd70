"""A model that reads: texts in, embeddings or labels out."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert import gguf
from ...convert.encode import from_q8_0, to_f32
from ...convert.errors import BadRequest, ContextLengthExceeded, UnsupportedModel
from ...convert.progress import Progress, silent
from ..llama.model import NativeModel
from ..llama.states import StatesContext
from ..machine import thread_count
from .head import POOLINGS, Array, Head

SMALLEST_CONTEXT = 64
NATIVE_POOLINGS: Mapping[int, str] = {1: "mean", 2: "first", 3: "last"}  # llama_pooling_type
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of one text.

    logits: one per label, as the model gives them. scores: probabilities that sum to 1; of each label alone where
    several can be true; the logits themselves for a regression.
    """

    labels: tuple[str, ...]
    logits: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def label(self) -> str:
        """The label with the highest score."""
        return self.labels[int(np.argmax(self.scores))]


class Encoder:
    """A loaded encoder, or a decoder with a head that is no language head. Safe to use from several threads.

        with Encoder.load("org/name") as encoder:
            print(encoder.classify(["What a lovely day."])[0].label)

    Token types are 0, as llama.cpp has them: pairs of texts, whose second text has type 1, are not offered.

    Raises:
        BadGGUF, LoadFailed: the file cannot be loaded.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.model = NativeModel(path)
        self.threads = threads or thread_count()
        self._lock = threading.Lock()
        self._context: StatesContext | None = None
        try:
            self.head = Head.of(self.model.metadata, self._embedding)
        except BaseException:
            self.model.close()
            raise

    @classmethod
    def load(cls, name: str | Path, *, threads: int | None = None, progress: Progress = silent) -> Encoder:
        """Load by name, as :meth:`Model.load` does: fetched, converted and proven first if it is not here yet."""
        from ..store.build import obtain
        from ..store.store import Store

        place = str(name.absolute()) if isinstance(name, Path) else name
        return cls(obtain(place, Store(), progress=progress).path, threads=threads)

    @property
    def longest_text(self) -> int:
        """Most tokens of a text, those that the tokenizer adds included."""
        own = self.model.metadata.get("ingle.max_sequence_length")
        trained = self.model.context_trained
        return min(trained, int(own)) if isinstance(own, int | np.integer) else trained

    def tokenize(self, text: str) -> list[int]:
        """The ids the model sees, special tokens included. Raises :class:`ContextLengthExceeded` for too many."""
        tokens = self.model.vocab.tokenize(text, add_special=True, parse_special=True)
        if not tokens:
            raise BadRequest("the text is empty", param="text")
        if len(tokens) > self.longest_text:
            raise ContextLengthExceeded(
                f"the text has {len(tokens)} tokens, and this model reads {self.longest_text}",
                hint="split it into shorter texts; nothing is cut silently",
                param="text",
            )
        return tokens

    def states(self, tokens: Sequence[int]) -> Array:
        """The states of the tokens behind the last layer, (tokens, width)."""
        with self._lock:
            return self._ready(len(tokens)).states(tokens)

    def outputs(self, text: str) -> Array:
        """What the head makes of a text, raw: (outputs,), or (tokens, outputs) for heads that look at each token.

        Raises:
            UnsupportedModel: the file has no head.
        """
        if self.head is None:
            raise UnsupportedModel(f"{self.model.name} has no head")
        return self.head.run(self.states(self.tokenize(text)))

    def embed(self, texts: Sequence[str], *, prompt: str = "", pooling: str | None = None) -> NDArray[np.float32]:
        """One embedding per text, (texts, dimensions).

        prompt: the name of one of the model's prompts, to put before each text. pooling: first, last, mean or max
        instead of what the file says; needed where it says nothing.

        Raises:
            BadRequest: no such prompt or pooling, or neither the file nor you say how to pool.
            ContextLengthExceeded: a text is too long.
        """
        before = self._prompt(prompt)
        head = self._embedder(pooling)
        rows = [head.run(self.states(self.tokenize(before + text))) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def classify(self, texts: Sequence[str]) -> list[Classification]:
        """The labels of each text.

        Raises:
            UnsupportedModel: the model does not classify texts. ContextLengthExceeded: a text is too long.
        """
        head = self.head
        if head is None or head.task != "sequence-classification":
            raise UnsupportedModel(
                f"{self.model.name} does not classify texts: its head is {head.task if head else 'none'}",
                hint="convert a checkpoint of a class ...ForSequenceClassification",
            )
        return [_classification(head, self.outputs(text)) for text in texts]

    def close(self) -> None:
        """Give the memory back. May be called twice."""
        with self._lock:
            if self._context is not None:
                self._context.close()
                self._context = None
            self.model.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ready(self, length: int) -> StatesContext:
        """A context for texts of ``length`` tokens: as small as will do, for its buffers grow with its square."""
        if self._context is None or self._context.capacity < length:
            if self._context is not None:
                self._context.close()
                self._context = None
            capacity = max(SMALLEST_CONTEXT, 1 << (length - 1).bit_length())
            self._context = StatesContext(self.model, min(capacity, max(length, self.longest_text)), self.threads)
        return self._context

    def _embedder(self, pooling: str | None) -> Head:
        if pooling is None and self.head is not None and self.head.task == "feature-extraction":
            return self.head
        native = self.model.metadata.get(f"{self.model.architecture}.pooling_type")
        chosen = pooling or NATIVE_POOLINGS.get(int(native) if isinstance(native, int | np.integer) else 0, "")
        if chosen not in POOLINGS or chosen == "each":
            raise BadRequest(
                f"no pooling {chosen!r}" if chosen else f"{self.model.name} does not say how its embeddings are pooled",
                hint="choose one of first, last, mean, max (most models that say nothing were trained with mean)",
                param="pooling",
            )
        return Head("feature-extraction", chosen, (), {}, (), "", 0.0)

    def _prompt(self, name: str) -> str:
        metadata = self.model.metadata
        prompts: dict[str, Any] = json.loads(str(metadata.get("ingle.prompts", "{}")))
        wanted = name or str(metadata.get("ingle.default_prompt", ""))
        if not wanted:
            return ""
        if wanted not in prompts:
            raise BadRequest(f"the model has no prompt {wanted!r}", hint=f"it has {', '.join(prompts) or 'none'}")
        return str(prompts[wanted])

    def _embedding(self) -> Array:
        """The token embedding, (vocabulary, width), for a decoder that is tied to it."""
        file = gguf.read(self.model.path)
        info = file.tensors["token_embd.weight"]
        stored = file.tensor("token_embd.weight")
        if info.type.name == "Q8_0":
            return from_q8_0(stored).reshape(info.shape)
        if info.type.name not in FLOATS:
            raise UnsupportedModel(
                f"the head needs the token embedding, which is stored as {info.type.name}",
                hint=f"keep the model as one of {', '.join(FLOATS)} or Q8_0",
            )
        return to_f32(stored, info.type.name)


def _classification(head: Head, logits: Array) -> Classification:
    return Classification(head.labels, tuple(map(float, logits)), tuple(map(float, _scores(head, logits))))


def _scores(head: Head, logits: Array) -> Array:
    if head.problem_type == "regression":
        return logits
    if head.problem_type == "multi_label_classification" or len(logits) == 1:
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum(), np.float32)
