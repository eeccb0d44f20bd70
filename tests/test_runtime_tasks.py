"""Tasks, against what transformers' pipelines made of the same weights (tests/reference/make_tasks.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasked
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from ingle.convert import convert, gguf
from ingle.convert.errors import BadRequest, ContextLengthExceeded, EngineClosed, UnsupportedModel
from ingle.quantize import quantize
from ingle.runtime.llama.rows import rows
from ingle.runtime.llama.states import StatesContext
from ingle.runtime.tasks import classification, embedding, masks, packing, reranking, tagging, zero_shot
from ingle.runtime.tasks.answering import Search, answer
from ingle.runtime.tasks.encoder import Encoder
from ingle.runtime.tasks.model import TaskModel

SCORE = 1e-3
HELD = ("tokenizer.huggingface.json", "ingle.tokenizer.library")  # what says that a file holds its tokenizer


def of_kind(*kinds: str) -> list[str]:
    return [name for name in tasked.NAMES if name.rpartition("_")[2] in kinds]


@contextmanager
def loaded(folder: Path, recipe: Mapping[str, Any], dtype: str = "f32") -> Iterator[Encoder]:
    with Encoder(tasked.converted(folder, recipe, dtype), threads=1) as encoder:
        yield encoder


def same_order(ours: list[tuple[Any, float]], theirs: list[tuple[Any, float]]) -> None:
    """The same things in the same order; two whose scores are closer than our error may change places, the last one
    with one that is not shown."""
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=SCORE)
    expected = dict(theirs)
    for place, ((mine, score), (other, _)) in enumerate(zip(ours, theirs, strict=True), 1):
        rival = expected.get(mine, score if place == len(theirs) else np.inf)
        assert mine == other or abs(rival - expected[other]) < SCORE / 5, (mine, other)


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
            if dtype == "f32":
                assert np.abs(together - alone).max() <= 2e-3 * np.abs(alone).max()
            assert min(map(cosine, together, alone)) >= least


def cosine(ours: np.ndarray, theirs: Any) -> float:
    other = np.array(theirs)
    return float(ours @ other / np.linalg.norm(ours) / np.linalg.norm(other))


def test_texts_of_like_length_are_packed_into_steps() -> None:
    found = packing.steps([3, 700, 5, 500, 9, 12, 1], most_texts=3, tokens=512)
    assert found == [[1], [3, 5], [4, 2, 0], [6]]
    assert packing.steps([2] * 600, 256, 512) == [list(range(256)), list(range(256, 512)), list(range(512, 600))]
    assert packing.steps([], 3, 512) == []


def test_steps_are_read_side_by_side_but_for_what_is_too_long() -> None:
    lengths = [700, 100, 100, 90, 80, 600, 10]
    assert packing.rounds(lengths, 256, 200, readers=2) == [[[0]], [[5]], [[1, 2], [3, 4, 6]]]
    assert packing.rounds([30, 20, 10, 5], 256, 200, readers=2) == [[[0, 3], [1, 2]]]
    assert packing.rounds([30, 20, 10, 5], 1, 200, readers=2) == [[[0], [1]], [[2], [3]]]
    assert packing.rounds([30], 256, 200, readers=2) == [[[0]]]
    assert packing.rounds([150] * 5, 256, 200, readers=2, each=2) == [[[0], [1], [2], [3]], [[4]]]
    assert packing.rounds([], 256, 200, readers=2) == []


def test_a_task_by_name_takes_and_gives_plain_values(tmp_path: Path) -> None:
    recipe = tasked.recipe("bert_answers")
    tasked.write(tmp_path / "checkpoint", recipe)
    with TaskModel(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path, threads=1) as model:
        assert model.tasks == ("question-answering", "feature-extraction")
        given = {"question": "Who?", "context": "William Shakespeare wrote it in London."}
        one = model.task("question-answering", given, top_k=2)
        assert [answer["answer"] for answer in one["answers"]][:1] == [" Shakespeare"]
        assert len(model.task("question-answering", [given, given])) == 2
        assert len(model.task("feature-extraction", "abc")["features"]) == 5
        for wrong in ({"question": "Who?"}, {**given, "x": "y"}, {"question": 3, "context": "x"}, 3):
            with pytest.raises(BadRequest, match=r"input 0 of question-answering|of input 0 must be"):
                model.task("question-answering", [wrong])
        with pytest.raises(ContextLengthExceeded, match="question has 60 tokens"):
            model.task("question-answering", {**given, "question": "W" * 60}, max_seq_len=64)
        with pytest.raises(BadRequest, match="question or the text is empty"):
            model.task("question-answering", {**given, "context": ""})
    with pytest.raises(EngineClosed):
        model.task("feature-extraction", "abc")


def test_a_pair_is_cut_where_it_may_be(tmp_path: Path) -> None:
    with loaded(tmp_path, tasked.recipe("bert_labels")) as encoder:
        with pytest.raises(ContextLengthExceeded, match="703 tokens, and this model reads 528"):
            classification.classify(encoder, [("a" * 600, "b" * 100)])
        cut = classification.classify(encoder, [("a" * 600, "b" * 100)], truncate=True)[0]
        same = classification.classify(encoder, [("a" * 425, "b" * 100)])[0]
        assert (cut.cut, same.cut) == (175, 0)
        assert cut.logits == pytest.approx(same.logits, abs=1e-4)
        sure = zero_shot.zero_shot(encoder, ["a" * 600], ["x", "yy"], truncate=True)[0]
        assert sure.cut == 600 + 3 + len("This example is yy.") - 528
        with pytest.raises(ContextLengthExceeded, match="do not fit into 10 tokens, even cut"):
            zero_shot.zero_shot(encoder, ["a"], ["x"], truncate=True, max_length=10)
        with pytest.raises(ContextLengthExceeded, match="3 tokens leave no room beside the 3"):
            classification.classify(encoder, [("a", "b")], truncate=True, max_length=3)
        with pytest.raises(BadRequest, match="lone surrogate at character 1"):
            encoder.encode("a\ud800")


def test_a_file_without_its_tokenizer_still_embeds(tmp_path: Path) -> None:
    recipe = tasked.recipe("roberta_states")
    tasked.write(tmp_path / "checkpoint", recipe)
    file = gguf.read(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path)
    kept = {key: value for key, value in file.metadata.items() if key not in HELD}
    tasked.rewritten(file, tmp_path / "bare.gguf", kept)
    case = recipe["golden"][0]
    with Encoder(tmp_path / "bare.gguf", threads=1) as encoder:
        found = embedding.embed(encoder, [case["input"], "x" * 600], pooling="mean", truncate=True)
        assert cosine(found.vectors[0], case["mean"]) > 0.9999
        assert (found.tokens[1], found.cut[1]) == (526, 76)
        with pytest.raises(UnsupportedModel, match="does not have its checkpoint's tokenizer"):
            encoder.encode(("a", "b"))


def test_a_quantized_file_keeps_head_tokenizer_and_segments(tmp_path: Path) -> None:
    recipe = tasked.recipe("bert_labels")
    pairs = [("Rough winds do shake", "the darling buds of May"), ("one", "two")]
    with loaded(tmp_path, recipe) as encoder:
        exact = classification.classify(encoder, pairs)
    smaller = quantize(tmp_path / "f32.gguf", tmp_path / "small.gguf", "Q5_0").path
    file = gguf.read(smaller)
    kinds = {info.name: info.type.name for info in file.tensors.values() if info.type.block > 1}
    assert set(kinds.values()) == {"Q5_0", "Q8_0"}
    for name, kind in kinds.items():
        expected = dequantize(file.tensor(name), GGMLQuantizationType[kind])
        ids = np.array([2, 1, 1])
        assert np.array_equal(rows(file, name, ids), expected[ids])
        assert np.array_equal(rows(file, name), expected)
    with Encoder(smaller, threads=1) as encoder:
        for ours, before in zip(classification.classify(encoder, pairs), exact, strict=True):
            assert ours.labels == before.labels
            assert ours.scores == pytest.approx(before.scores, abs=0.1)


def test_a_masked_model_is_filled_from_a_quantized_embedding(tmp_path: Path) -> None:
    with loaded(tmp_path, tasked.recipe("bert_masks")) as encoder:
        exact = masks.fill(encoder, ["a <mask> b"], top_k=1)[0].masks[0][0]
    smaller = quantize(tmp_path / "f32.gguf", tmp_path / "small.gguf", "Q5_0").path
    with Encoder(smaller, threads=1) as encoder:
        found = {one.token: one.score for one in masks.fill(encoder, ["a <mask> b"], top_k=20)[0].masks[0]}
    assert found[exact.token] == pytest.approx(exact.score, rel=0.5)


@pytest.mark.parametrize("kind", ["cosine", "dot", "euclidean", "manhattan"])
def test_embeddings_are_compared_as_the_checkpoint_says(kind: str, tmp_path: Path) -> None:
    recipe = tasked.recipe("bert_states")
    recipe["files"] = {
        "modules.json": [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}],
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"similarity_fn_name": kind},
        "sentence_bert_config.json": {"do_lower_case": True},
    }
    with TaskModel(tasked.converted(tmp_path, recipe), threads=1) as model:
        texts = ["Rough WINDS", "do shake", "the darling buds"]
        a, *others = (np.array(one["embedding"]) for one in model.task("embeddings", texts))
        assert np.allclose(a, model.task("embeddings", "rough winds")["embedding"], atol=1e-5)
        found = model.task("sentence-similarity", {"source_sentence": texts[0], "sentences": texts[1:]})["scores"]
    expected = {
        "cosine": [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in others],
        "dot": [a @ b for b in others],
        "euclidean": [-(((a - b) ** 2).sum() ** 0.5) for b in others],
        "manhattan": [-np.abs(a - b).sum() for b in others],
    }
    assert found == pytest.approx(expected[kind], abs=1e-4)


def test_a_text_that_needs_much_memory_goes_by_flash_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tasked.recipe("bert_states")
    case = recipe["golden"][-1]
    monkeypatch.setattr("ingle.runtime.tasks.encoder.available_memory_bytes", lambda: 4 * 512**2 * 8)
    asked = []
    monkeypatch.setattr(
        "ingle.runtime.tasks.encoder.StatesContext",
        lambda *given, flash: asked.append((given[1], flash)) or StatesContext(*given, flash=flash),
    )
    with loaded(tmp_path, recipe) as encoder:
        assert cosine(embedding.embed(encoder, [case["input"]], pooling="mean").vectors[0], case["mean"]) > 0.999
        embedding.embed(encoder, ["short"], pooling="mean")
    assert asked == [(512, True)]


def test_several_threads_share_a_model(tmp_path: Path) -> None:
    with TaskModel(tasked.converted(tmp_path, tasked.recipe("bert_masks")), threads=1) as model:
        texts = ["a <mask> b", "<mask>" + "x" * 700, "some <mask> words"]
        alone = [model.task("fill-mask", text, truncate=True, targets=["q", "Z"]) for text in texts]

        def work(number: int) -> Any:
            return model.task("fill-mask", texts[number % 3], truncate=True, targets=["q", "Z"])

        with ThreadPoolExecutor(6) as pool:
            for number, found in enumerate(pool.map(work, range(60))):
                before = alone[number % 3]
                assert found.get("truncated") == before.get("truncated")
                for ours, theirs in zip(found["masks"][0], before["masks"][0], strict=True):
                    assert ours["sequence"] == theirs["sequence"]
