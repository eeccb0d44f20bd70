"""Which head a task needs, and what is said when a model has another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...convert.errors import UnsupportedModel
from .head import Head

if TYPE_CHECKING:
    from .encoder import Encoder

SEQUENCE, TOKENS, ANSWER, MASK, FEATURES = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "feature-extraction",
)
TASKS: Mapping[str, tuple[str, ...]] = {
    SEQUENCE: ("text-classification",),
    TOKENS: ("token-classification",),
    ANSWER: ("question-answering",),
    MASK: ("fill-mask",),
    FEATURES: ("embeddings", "sentence-similarity"),
}
EVERY = ("feature-extraction",)
POOLED = ("embeddings", "sentence-similarity")
WANTED: Mapping[str, str] = {
    "text-classification": "a checkpoint of a class ...ForSequenceClassification",
    "token-classification": "a checkpoint of a class ...ForTokenClassification",
    "question-answering": "a checkpoint of a class ...ForQuestionAnswering",
    "fill-mask": "a checkpoint of a class ...ForMaskedLM",
    "rerank": "a classifier with one output, a cross-encoder",
    "zero-shot-classification": "a classifier with a label that begins with 'entail', as NLI models have",
    "embeddings": "a model for embeddings, or to be told a pooling",
    "sentence-similarity": "a model for embeddings, or to be told a pooling",
}


def possible(encoder: Encoder) -> tuple[str, ...]:
    """The tasks that a model can do, the one it was made for first."""
    head = encoder.head
    found = list(TASKS.get(head.task, ())) if head else []
    if head and head.task == SEQUENCE:
        found += ["rerank"] if len(head.labels) == 1 else []
        found += ["zero-shot-classification"] if entailment(head) is not None else []
    if not found or (head and head.task == FEATURES):
        found = [*POOLED]
    return (*found, *EVERY)


def entailment(head: Head) -> int | None:
    """The label that says that a text follows from another; None for a model that was not trained to say so."""
    return next((index for index, label in enumerate(head.labels) if label.lower().startswith("entail")), None)


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
