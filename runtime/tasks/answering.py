"""Question answering: the part of a text that answers a question, as transformers 4 had a pipeline for it.

A long text is read in windows that overlap. Each span's score is the probability of its start times that of its end,
within its window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...convert.errors import BadRequest
from ...convert.progress import Progress, silent
from ..abilities import ANSWER
from .head import Array
from .heads import needed
from .text import Encoded
from .work import heed

if TYPE_CHECKING:
    from .encoder import Encoder

WINDOW, STRIDE = 384, 128
LONGEST_ANSWER = 15
FAR_BELOW = -10_000.0  # the logit of a token that can be no answer


@dataclass(frozen=True, slots=True)
class Answer:
    """answer: ``context[start:end]``; empty where the text has none."""

    answer: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Search:
    """top_k: answers to a question. max_answer_length: in tokens. no_answer: the text may have no answer. window: most
    tokens of question and text together; stride: how many tokens two windows share. align: to whole words."""

    top_k: int = 1
    max_answer_length: int = LONGEST_ANSWER
    no_answer: bool = False
    window: int | None = None
    stride: int | None = None
    align: bool = True


def answer(
    encoder: Encoder,
    questions: Sequence[tuple[str, str]],
    search: Search | None = None,
    *,
    progress: Progress = silent,
) -> list[list[Answer]]:
    """The best answers to each question, which comes with the text to look in; the best first.

    Raises:
        UnsupportedModel: the model does not answer questions, or its file has no tokenizer of its own.
        BadRequest: a question or text is empty, or the settings do not fit each other.
    """
    head = needed(encoder, ANSWER, "question-answering")
    search = search or Search()
    most = min(search.window or WINDOW, encoder.longest_text)
    stride = min(most // 2, STRIDE) if search.stride is None else search.stride
    if search.top_k < 1 or search.max_answer_length < 1 or not 0 <= stride < most:
        raise BadRequest(f"top_k {search.top_k}, max_answer_length {search.max_answer_length}, stride {stride} and "
                         f"window {most} do not fit each other")  # fmt: skip
    windows: list[Encoded] = []
    counts = []
    for question, context in questions:
        if not question or not context:
            raise BadRequest("the question or the text is empty", param="input")
        heed(progress)
        windows += encoder.text.windows(question, context, most, stride)
        counts.append(len(windows))
    read = list(zip(windows, encoder.read(windows, head.run, progress), strict=True))
    bounds = zip([0, *counts[:-1]], counts, strict=True)
    first_id = encoder.text.special_id("cls")
    return [
        _best(context, read[begin:end], search, first_id)
        for (_, context), (begin, end) in zip(questions, bounds, strict=True)
    ]


def _best(context: str, read: Sequence[tuple[Encoded, Array]], search: Search, cls: int | None) -> list[Answer]:
    found: list[Answer] = []
    nothing = 1e6
    for window, logits in read:
        allowed = _allowed(window, cls)
        begins, ends = _probabilities(logits[:, 0], allowed), _probabilities(logits[:, 1], allowed)
        nothing = min(nothing, float(begins[0] * ends[0]))
        begins[0] = ends[0] = 0
        for span in _spans(context, window, (begins, ends), allowed, search):
            _add(found, span)
    if search.no_answer:
        found.append(Answer("", nothing, 0, 0))
    return sorted(found, key=lambda span: -span.score)[: search.top_k]


def _allowed(window: Encoded, cls: int | None) -> Array:
    """Where an answer may be: in the text, or at the token that stands for no answer."""
    first = window.ids[0] if cls is None else cls
    return np.array([text == 1 or token == first for text, token in zip(window.texts, window.ids, strict=True)])


def _probabilities(logits: Array, allowed: Array) -> Array:
    masked = np.where(allowed, logits, np.float32(FAR_BELOW))
    raised = np.exp(masked - masked.max())
    return np.asarray(raised / raised.sum(), np.float32)


def _spans(
    context: str, window: Encoded, probabilities: tuple[Array, Array], allowed: Array, search: Search
) -> Iterator[Answer]:
    """The most probable spans; some fall away or become one when they are widened to whole words."""
    scores = np.tril(np.triu(np.outer(*probabilities)), search.max_answer_length - 1).ravel()
    count = min(search.top_k * 2 + 10 if search.align else search.top_k, len(scores))
    order = np.argpartition(-scores, count - 1)[:count]
    for flat in order[np.argsort(-scores[order], kind="stable")]:
        begin, end = divmod(int(flat), len(window.ids))
        if allowed[begin] and allowed[end]:
            start, stop = _characters(window, begin, end, search.align)
            yield Answer(context[start:stop], float(scores[flat]), start, stop)


def _characters(window: Encoded, begin: int, end: int, align: bool) -> tuple[int, int]:
    start, stop = window.offsets[begin][0], window.offsets[end][1]
    if not align or window.words[begin] is None or window.words[end] is None:
        return start, stop
    return _word(window, begin)[0], _word(window, end)[1]


def _word(window: Encoded, index: int) -> tuple[int, int]:
    """The characters of the word that a token is of."""
    places = [
        offsets
        for offsets, word, text in zip(window.offsets, window.words, window.texts, strict=True)
        if word == window.words[index] and text == 1
    ]
    return places[0][0], places[-1][1]


def _add(found: list[Answer], span: Answer) -> None:
    """The same words in another place or window are one answer, and their scores add up."""
    for index, other in enumerate(found):
        if other.answer.lower() == span.answer.lower():
            found[index] = replace(other, score=other.score + span.score)
            return
    found.append(span)
