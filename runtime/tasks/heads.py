"""Which head a task needs, and what is said when a model has another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...convert.errors import UnsupportedModel
from ..abilities import tasks_of
from .head import Head

if TYPE_CHECKING:
    from .encoder import Encoder

WANTED: Mapping[str, str] = {
    "text-classification": "a checkpoint of a class ...ForSequenceClassification",
    "token-classification": "a checkpoint of a class ...ForTokenClassification",
    "question-answering": "a checkpoint of a class ...ForQuestionAnswering",
    "fill-mask": "a checkpoint of a class ...ForMaskedLM",
    "rerank": "a classifier with one output (a cross-encoder), or a language model that says yes or no",
    "zero-shot-classification": "a classifier with a label that begins with 'entail', as NLI models have",
    "embeddings": "a model for embeddings, or to be told a pooling",
    "sentence-similarity": "a model for embeddings, or to be told a pooling",
}


def possible(encoder: Encoder) -> tuple[str, ...]:
    """The tasks that a model can do, the one it was made for first."""
    head = encoder.head
    return tasks_of(head.task, head.labels) if head else tasks_of("", ())


def needed(encoder: Encoder, kind: str, task: str) -> Head:
    """The head of an encoder, if it is of that kind.

    Raises:
        UnsupportedModel: it is not; the message says what the model can do.
    """
    if encoder.head is None or encoder.head.task != kind:
        raise unfit(encoder, task)
    return encoder.head


def unfit(encoder: Encoder, task: str) -> UnsupportedModel:
    """What is said of a model that cannot do a task."""
    head = encoder.head.task if encoder.head else "none"
    return UnsupportedModel(
        f"{encoder.name} cannot do {task}: its head is {head}",
        hint=f"it can do {', '.join(possible(encoder))}; {task} needs {WANTED[task]}",
    )
