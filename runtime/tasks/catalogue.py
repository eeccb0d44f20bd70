"""The tasks by name: what each takes, what it can be told, and what it gives, in the words of transformers' pipelines.

Inputs and results are plain values, as JSON has them: this is what the command, the server and
:meth:`.model.TaskModel.task` speak. Functions with proper types are in the modules of the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ...convert.progress import Progress
from . import classification, embedding, masks, reranking, tagging, zero_shot
from .answering import LONGEST_ANSWER, Search, answer
from .task import TOKENS, Parameter, Settings, Task
from .text import Part, Text
from .work import heed
from .writing import WRITING

if TYPE_CHECKING:
    from .encoder import Encoder

LENGTHS: Mapping[str, Parameter] = {
    "truncate": Parameter(bool, False, help="cut a text that is too long, and say how much, instead of refusing it"),
    "max_length": Parameter(int, help="most tokens of a text; by default as many as the model reads"),
}
TOP_K = Parameter(int, help="how many results, the best first")
EMBEDDED: Mapping[str, Parameter] = {
    "prompt": Parameter(str, "", help="the name of one of the model's prompts, put before each text"),
    "pooling": Parameter(str, help="first, last, mean or max, instead of what the file says"),
    **LENGTHS,
}


def _embeddings(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    found = embedding.embed(encoder, _given(inputs), **settings, progress=progress)
    return [
        {"embedding": row, **_cut(cut), "tokens": tokens}
        for row, cut, tokens in zip(found.vectors.tolist(), found.cut, found.tokens, strict=True)
    ]


def _similarity(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    settings["progress"] = progress
    return [
        {"scores": embedding.similarities(encoder, one["source_sentence"], one["sentences"], **settings)}
        for one in inputs
    ]


def _features(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    found = embedding.features(encoder, _given(inputs), **settings, progress=progress)
    results = []
    for states in found:
        heed(progress)  # these are many numbers
        results.append({"features": states.tolist()})
    return results


def _given(inputs: Sequence[Any]) -> list[str | Sequence[Part]]:
    """Texts, and token ids."""
    return [one[TOKENS] if TOKENS in one else one["text"] for one in inputs]


def _rerank(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    top_k = settings.pop("top_k")
    found = [
        reranking.rerank(encoder, given["query"], given["documents"], **settings, progress=progress) for given in inputs
    ]
    return [
        {"results": [_shown(one) for one in ranked[:top_k]], "tokens": sum(one.tokens for one in ranked)}
        for ranked in found
    ]


def _classify(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    top_k = settings.pop("top_k")
    texts: list[Text] = [(one["text"], one["text_pair"]) if "text_pair" in one else one["text"] for one in inputs]
    found = classification.classify(encoder, texts, **settings, progress=progress)
    names = ("label", "score", "logit")
    return [
        {"labels": [dict(zip(names, entry, strict=True)) for entry in one.ranked()[:top_k]], **_cut(one.cut)}
        for one in found
    ]


def _tag(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    settings["aggregation"] = settings.pop("aggregation_strategy")
    settings["ignore"] = settings.pop("ignore_labels")
    found = tagging.tag(encoder, [one["text"] for one in inputs], **settings, progress=progress)
    return [{"entities": [_entity(entity) for entity in one.entities], **_cut(one.cut)} for one in found]


def _entity(entity: tagging.Entity) -> dict[str, Any]:
    values = asdict(entity)
    name, index = values.pop("entity"), values.pop("index")
    return {"entity_group": name, **values} if index is None else {"entity": name, **values, "index": index}


def _answer(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    search = Search(
        top_k=settings["top_k"],
        max_answer_length=settings["max_answer_len"],
        no_answer=settings["handle_impossible_answer"],
        window=settings["max_seq_len"],
        stride=settings["doc_stride"],
        align=settings["align_to_words"],
    )
    found = answer(encoder, [(one["question"], one["context"]) for one in inputs], search, progress=progress)
    return [{"answers": [asdict(one) for one in answers]} for answers in found]


def _fill(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    found = masks.fill(encoder, [one["text"] for one in inputs], **settings, progress=progress)
    return [{"masks": [[asdict(one) for one in fillings] for fillings in text.masks], **_cut(text.cut)}
            for text in found]  # fmt: skip


def _zero_shot(encoder: Encoder, inputs: Sequence[Any], settings: Settings, progress: Progress) -> list[Any]:
    labels, template = settings.pop("candidate_labels"), settings.pop("hypothesis_template")
    texts = [one["text"] for one in inputs]
    found = zero_shot.zero_shot(encoder, texts, labels, template=template, **settings, progress=progress)
    return [_shown(one) for one in found]


def _shown(result: Any) -> dict[str, Any]:
    values = asdict(result)
    return {**values, **_cut(values.pop("cut"))}


def _cut(tokens: int) -> dict[str, int]:
    """Only what was cut is worth a word."""
    return {"truncated": tokens} if tokens else {}


READING = (
    Task(
        "embeddings",
        "a text as one vector",
        ("text",),
        _embeddings,
        {
            **EMBEDDED,
            "normalize": Parameter(bool, help="to length 1, whatever the model does"),
            "dimensions": Parameter(int, help="keep the first of them"),
        },
        tokens=True,
    ),
    Task("feature-extraction", "a vector for each token", ("text",), _features, LENGTHS, tokens=True),
    Task(
        "sentence-similarity",
        "how like a text others are (cosine)",
        ("source_sentence", "sentences*"),
        _similarity,
        EMBEDDED,
    ),
    Task(
        "rerank",
        "documents by how well they answer a query",
        ("query", "documents*"),
        _rerank,
        {
            "top_k": TOP_K,
            "instruction": Parameter(str, "", help="what the query is for, in words; for models that answer yes or no"),
            **LENGTHS,
        },
    ),
    Task(
        "text-classification",
        "the labels of a text, or of a pair",
        ("text", "text_pair?"),
        _classify,
        {"top_k": TOP_K, **LENGTHS},
    ),
    Task(
        "token-classification",
        "names, places, ... in a text",
        ("text",),
        _tag,
        {
            "aggregation_strategy": Parameter(str, "none", help=f"one of {', '.join(tagging.AGGREGATIONS)}"),
            "ignore_labels": Parameter(str, ("O",), several=True, help="labels that are no entities"),
            **LENGTHS,
        },
    ),
    Task(
        "question-answering",
        "the part of a text that answers a question",
        ("question", "context"),
        _answer,
        {
            "top_k": Parameter(int, 1, help="how many answers"),
            "max_answer_len": Parameter(int, LONGEST_ANSWER, help="most tokens of an answer"),
            "handle_impossible_answer": Parameter(bool, False, help="the text may have no answer"),
            "max_seq_len": Parameter(int, help="most tokens of question and text in one window"),
            "doc_stride": Parameter(int, help="tokens that two windows share", least=0),
            "align_to_words": Parameter(bool, True, help="answers are whole words"),
        },
    ),
    Task(
        "fill-mask",
        "the tokens that fit where a text has the mask",
        ("text",),
        _fill,
        {
            "top_k": Parameter(int, 5, help="how many tokens for each mask"),
            "targets": Parameter(str, (), several=True, help="only these"),
            **LENGTHS,
        },
    ),
    Task(
        "zero-shot-classification",
        "labels of your own",
        ("text",),
        _zero_shot,
        {
            "candidate_labels": Parameter(str, several=True, required=True, help="the labels to choose from"),
            "hypothesis_template": Parameter(
                str, zero_shot.TEMPLATE, help="the sentence that a label is put into, at its {}"
            ),
            "multi_label": Parameter(bool, False, help="several may be true"),
            **LENGTHS,
        },
    ),
)
TASKS: Mapping[str, Task] = {task.name: task for task in (*READING, *WRITING)}
