"""Reranking: how well documents answer a query, by a cross-encoder that reads each with the query, or by a language
model that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...convert.errors import BadRequest
from ...convert.progress import Progress, silent
from ..abilities import RELEVANCE, SEQUENCE
from .embedding import prompt_text
from .heads import unfit
from .scores import sigmoid
from .work import heed

if TYPE_CHECKING:
    from .encoder import Encoder


@dataclass(frozen=True, slots=True)
class Ranked:
    """index: of the document among those given. score: from 0 to 1. logit: what the model said. tokens, cut: of query
    and document, how many were read and how many left out."""

    index: int
    score: float
    logit: float
    document: str
    tokens: int = 0
    cut: int = 0


def rerank(
    encoder: Encoder,
    query: str,
    documents: Sequence[str],
    *,
    instruction: str = "",
    top_k: int | None = None,
    truncate: bool = False,
    max_length: int | None = None,
    progress: Progress = silent,
) -> list[Ranked]:
    """The documents, the best first; as many as ``top_k`` if given. The score is the logit's sigmoid.

    instruction: what the query is for, in words, for language models that judge; empty for what the model says itself.

    Raises:
        UnsupportedModel: the model is no cross-encoder of one output, and no language model that judges.
        BadRequest: an instruction for a cross-encoder. ContextLengthExceeded: a pair is too long.
    """
    head = encoder.head
    if head is None or not (head.task == RELEVANCE or (head.task == SEQUENCE and len(head.labels) == 1)):
        raise unfit(encoder, "rerank")
    length = encoder.length(truncate=truncate, max_length=max_length)
    if head.task == RELEVANCE:
        said = instruction or prompt_text(encoder, "")
        encoded = []
        for document in documents:
            heed(progress)
            encoded.append(encoder.judge.encode(query, document, said, length))
    elif instruction:
        raise BadRequest(f"{encoder.name} reads a query and a document, and no instruction", param="instruction")
    else:
        encoded = encoder.encode_all([(query, document) for document in documents], length, progress)
    logits = np.array([out[0] for out in encoder.read(encoded, head.run, progress)], np.float32)
    scores = sigmoid(logits)
    return [
        Ranked(
            int(index),
            float(scores[index]),
            float(logits[index]),
            documents[index],
            len(encoded[index].ids),
            encoded[index].cut,
        )
        for index in np.argsort(-logits, kind="stable")[:top_k]
    ]
