"""Zero-shot classification: labels of your own, by a model that knows what follows from what (NLI)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...convert.errors import BadRequest
from ...convert.progress import Progress, silent
from ..abilities import SEQUENCE, entailment
from .heads import needed, unfit
from .scores import softmax
from .text import Text

if TYPE_CHECKING:
    from .encoder import Encoder

TEMPLATE = "This example is {}."


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """labels: yours, the likeliest first, with their scores. cut: most tokens of the text that were left out."""

    sequence: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    cut: int = 0


def zero_shot(
    encoder: Encoder,
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    multi_label: bool = False,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[ZeroShot]:
    """Which of ``labels`` fit each text.

    template: the sentence that a label is put into, at its ``{}``. multi_label: several may be true, so that each has a
    probability of its own; otherwise they sum to 1. Only the text is cut, never the sentence with the label.

    Raises:
        UnsupportedModel: the model has no label that begins with ``entail``. BadRequest: no labels, or a template
        without ``{}``.
    """
    head = needed(encoder, SEQUENCE, "zero-shot-classification")
    entails = entailment(head.labels)
    if entails is None:
        raise unfit(encoder, "zero-shot-classification")
    if not labels:
        raise BadRequest("no labels to choose from", param="candidate_labels")
    if "{}" not in template:
        raise BadRequest(f"the template {template!r} has no {{}} for the label", param="hypothesis_template")
    length = replace(encoder.length(truncate=truncate, max_length=max_length), strategy="only_first")
    pairs: list[Text] = [(text, template.replace("{}", label)) for text in texts for label in labels]
    encoded = encoder.encode_all(pairs, length, progress)
    logits = encoder.read(encoded, head.run, progress)
    against = -1 if entails == 0 else 0
    results = []
    for index, text in enumerate(texts):
        rows = slice(index * len(labels), (index + 1) * len(labels))
        block = np.stack(logits[rows])
        alone = multi_label or len(labels) == 1
        scores = softmax(block[:, [against, entails]])[:, 1] if alone else softmax(block[:, entails])
        order = np.argsort(-scores, kind="stable")
        results.append(
            ZeroShot(
                text,
                tuple(labels[place] for place in order),
                tuple(float(scores[place]) for place in order),
                max(one.cut for one in encoded[rows]),
            )
        )
    return results
