"""What a model can do besides to continue a text, by the head that its file says it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..convert.gguf import Value

HEAD_TASK, HEAD_LABELS = "ingle.head.task", "ingle.head.labels"
SEQUENCE, TOKENS, ANSWER, MASK, FEATURES, RELEVANCE = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "feature-extraction",
    "relevance",
)
TASKS: Mapping[str, tuple[str, ...]] = {
    SEQUENCE: ("text-classification",),
    TOKENS: ("token-classification",),
    ANSWER: ("question-answering",),
    MASK: ("fill-mask",),
    FEATURES: ("embeddings", "sentence-similarity"),
    RELEVANCE: ("rerank",),
}
EVERY = ("feature-extraction",)
POOLED = ("embeddings", "sentence-similarity")


def of_file(metadata: Mapping[str, Value]) -> tuple[str, ...]:
    """What a file with a head can do; nothing for one without."""
    task, labels = metadata.get(HEAD_TASK), metadata.get(HEAD_LABELS, [])
    return tasks_of(task, list(map(str, labels if isinstance(labels, list) else ()))) if isinstance(task, str) else ()


def tasks_of(task: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The tasks that a model with such a head can do, the one it was made for first."""
    found = list(TASKS.get(task, ()))
    if task == SEQUENCE:
        found += ["rerank"] if len(labels) == 1 else []
        found += ["zero-shot-classification"] if entailment(labels) is not None else []
    return (*(found or POOLED), *EVERY)


def entailment(labels: Sequence[str]) -> int | None:
    """The label that says that a text follows from another; None for a model that was not trained to say so."""
    return next((index for index, label in enumerate(labels) if label.lower().startswith("entail")), None)
