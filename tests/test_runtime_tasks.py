"""Tasks, against what transformers' pipelines made of the same weights (tests/reference/make_tasks.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasked
from ingle.convert import convert
from ingle.runtime.tasks import classification, embedding, masks, reranking, tagging, zero_shot
from ingle.runtime.tasks.answering import Search, answer
from ingle.runtime.tasks.encoder import Encoder

SCORE = 1e-3


def of_kind(*kinds: str) -> list[str]:
    return [name for name in tasked.NAMES if name.rpartition("_")[2] in kinds]


@contextmanager
def loaded(folder: Path, recipe: Mapping[str, Any], dtype: str = "f32") -> Iterator[Encoder]:
    tasked.write(folder / "checkpoint", recipe)
    path = convert(folder / "checkpoint", folder / f"{dtype}.gguf", dtype).path
    with Encoder(path, threads=1) as encoder:
        yield encoder


def same_order(ours: list[tuple[Any, float]], theirs: list[tuple[Any, float]]) -> None:
    """The same things in the same order; two whose scores are closer than our error may change places."""
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=SCORE)
    expected = dict(theirs)
    for (mine, _), (other, _) in zip(ours, theirs, strict=True):
        assert mine == other or abs(expected[mine] - expected[other]) < SCORE / 5, (mine, other)


@pytest.mark.parametrize("name", of_kind("labels", "several", "number"))
def test_texts_and_pairs_are_classified(name: str, tmp_path: Path) -> None:
    recipe = tasked.recipe(name)
    golden = recipe["golden"]
    with loaded(tmp_path, recipe) as encoder:
        texts = [
            case["input"] if isinstance(case["input"], str) else (case["input"]["text"], case["input"]["text_pair"])
            for case in (golden["text-classification"] if "labels" in name else golden)
        ]
        found = classification.classify(encoder, texts)
        for case, result in zip(golden["text-classification"] if "labels" in name else golden, found, strict=True):
            theirs = [(entry["label"], entry["score"]) for entry in case["labels"]]
            same_order([(label, score) for label, score, _ in result.ranked()], theirs)
        for case in golden["zero-shot-classification"] if "labels" in name else ():
            result = zero_shot.zero_shot(
                encoder, [case["input"]], ["love", "the weather", "été"], template="It is {}!",
                multi_label=case["multi_label"],
            )[0]  # fmt: skip
            theirs = list(zip(case["result"]["labels"], case["result"]["scores"], strict=True))
            same_order(list(zip(result.labels, result.scores, strict=True)), theirs)


@pytest.mark.parametrize("name", of_kind("rank"))
def test_documents_are_ranked(name: str, tmp_path: Path) -> None:
    recipe = tasked.recipe(name)
    with loaded(tmp_path, recipe) as encoder:
        for case in recipe["golden"]:
            ranked = reranking.rerank(encoder, case["query"], case["documents"])
            scores = [1 / (1 + np.exp(-logit)) for logit in case["logits"]]
            theirs = sorted(enumerate(scores), key=lambda entry: -entry[1])
            same_order([(one.index, one.score) for one in ranked], theirs)
            assert [one.document for one in ranked] == [case["documents"][one.index] for one in ranked]


@pytest.mark.parametrize("name", of_kind("tags"))
def test_entities_are_found_in_every_way(name: str, tmp_path: Path) -> None:
    recipe = tasked.recipe(name)
    with loaded(tmp_path, recipe) as encoder:
        for case in recipe["golden"]:
            found = tagging.tag(encoder, [case["input"]], aggregation=case["aggregation"])[0].entities
            ours = [(one.entity, one.word, one.start, one.end) for one in found]
            kind = "entity" if case["aggregation"] == "none" else "entity_group"
            theirs = [(one[kind], one["word"], one["start"], one["end"]) for one in case["entities"]]
            assert ours == theirs
            scores = [one["score"] for one in case["entities"]]
            assert [one.score for one in found] == pytest.approx(scores, abs=SCORE)


@pytest.mark.parametrize("name", of_kind("answers"))
def test_questions_are_answered(name: str, tmp_path: Path) -> None:
    recipe = tasked.recipe(name)
    with loaded(tmp_path, recipe) as encoder:
        for case in recipe["golden"]:
            asked = case["asked"]
            search = Search(
                top_k=asked["top_k"],
                max_answer_length=asked.get("max_answer_len", 15),
                no_answer=asked.get("handle_impossible_answer", False),
                align=asked.get("align_to_words", True),
                window=64,
                stride=16,
            )
            found = answer(encoder, [(case["question"], case["context"])], search)[0]
            ours = [((one.answer, one.start, one.end), one.score) for one in found]
            theirs = [((one["answer"], one["start"], one["end"]), one["score"]) for one in case["answers"]]
            same_order(ours, theirs)


@pytest.mark.parametrize("name", of_kind("masks"))
def test_masks_are_filled(name: str, tmp_path: Path) -> None:
    recipe = tasked.recipe(name)
    with loaded(tmp_path, recipe) as encoder:
        for case in recipe["golden"]:
            found = masks.fill(encoder, [case["input"]], top_k=3, targets=case["targets"] or ())[0].masks
            for ours, theirs in zip(found, case["masks"], strict=True):
                same_order(
                    [((one.token, one.token_str, one.sequence), one.score) for one in ours],
                    [((one["token"], one["token_str"], one["sequence"]), one["score"]) for one in theirs],
                )


@pytest.mark.parametrize("name", of_kind("states"))
def test_embeddings_are_those_of_transformers(name: str, tmp_path: Path, record_property: Any) -> None:
    recipe = tasked.recipe(name)
    texts = [case["input"] for case in recipe["golden"]]
    assert max(case["tokens"] for case in recipe["golden"]) == 512
    for dtype, least in (("f32", 0.9999), ("q8_0", 0.995)):
        with loaded(tmp_path, recipe, dtype) as encoder:
            for pooling in ("mean", "first", "last"):
                found = embedding.embed(encoder, texts, pooling=pooling)
                assert list(found.tokens) == [case["tokens"] for case in recipe["golden"]]
                pairs = zip(found.vectors, recipe["golden"], strict=True)
                cosines = [cosine(row, case[pooling]) for row, case in pairs]
                record_property(f"{dtype} {pooling}", min(cosines))
                assert min(cosines) >= least
            mixed = [text[:length] for length in range(1, 17) for text in (*texts[:3], texts[-1])]
            together = embedding.embed(encoder, mixed, pooling="mean").vectors
            alone = np.stack([embedding.embed(encoder, [text], pooling="mean").vectors[0] for text in mixed])
            assert len(mixed) == 64
            assert np.abs(together - alone).max() <= 2e-3 * np.abs(alone).max()


def cosine(ours: np.ndarray, theirs: Any) -> float:
    other = np.array(theirs)
    return float(ours @ other / np.linalg.norm(ours) / np.linalg.norm(other))
