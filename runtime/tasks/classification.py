"""Text classification: which labels fit a text, or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...convert.progress import Progress, silent
from ..abilities import SEQUENCE
from .head import Array, Head
from .heads import needed
from .scores import sigmoid, softmax
from .text import Text

if TYPE_CHECKING:
    from .encoder import Encoder


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of one text.

    logits: one per label, as the model gives them. scores: probabilities that sum to 1; of each label alone where
    several can be true; the logits themselves for a regression. cut: tokens of the text that were left out.
    """

    labels: tuple[str, ...]
    logits: tuple[float, ...]
    scores: tuple[float, ...]
    cut: int = 0

    @property
    def label(self) -> str:
        """The label with the highest score."""
        return self.labels[int(np.argmax(self.scores))]

    def ranked(self) -> list[tuple[str, float, float]]:
        """Label, score and logit, the highest score first."""
        return sorted(zip(self.labels, self.scores, self.logits, strict=True), key=lambda entry: -entry[1])


def classify(
    encoder: Encoder,
    texts: Sequence[Text],
    *,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[Classification]:
    """The labels of each text or pair.

    Raises:
        UnsupportedModel: the model does not classify texts. ContextLengthExceeded: a text is too long.
    """
    head = needed(encoder, SEQUENCE, "text-classification")
    length = encoder.length(truncate=truncate, max_length=max_length)
    encoded = encoder.encode_all(texts, length, progress)
    found = encoder.read(encoded, head.run, progress)
    return [
        Classification(head.labels, _floats(logits), _floats(probabilities(head, logits)), text.cut)
        for text, logits in zip(encoded, found, strict=True)
    ]


def probabilities(head: Head, logits: Array) -> Array:
    """As transformers' pipeline has them."""
    if head.problem_type == "regression":
        return logits
    if head.problem_type == "multi_label_classification" or len(logits) == 1:
        return sigmoid(logits)
    return softmax(logits)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(map(float, values))
