"""Encoder-decoders: the tokens that they write, against transformers' (tests/reference/make_seq2seq.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tasked
from ingle.convert import convert
from ingle.convert.errors import BadRequest, Cancelled, ContextLengthExceeded, UnsupportedModel
from ingle.runtime.tasks.model import TaskModel
from ingle.runtime.tasks.seq2seq import Generation, Seq2Seq
from ingle.runtime.tasks.text_stream import Teller

RECIPES = Path(__file__).parent / "seq2seq"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seq2Seq]:
    folder = tmp_path_factory.mktemp("t5")
    tasked.write(folder / "checkpoint", recipe("t5"))
    with Seq2Seq(convert(folder / "checkpoint", folder / "model.gguf", "f32").path, threads=1) as model:
        yield model


@pytest.mark.parametrize("name", NAMES)
def test_the_same_tokens_are_written(name: str, tmp_path: Path) -> None:
    made = recipe(name)
    tasked.write(tmp_path / "checkpoint", made)
    with Seq2Seq(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path, threads=1) as model:
        for case in made["golden"]:
            settings = {key: tuple(value) if isinstance(value, list) else value
                        for key, value in case["settings"].items()}  # fmt: skip
            found = model.write([text["input"] for text in case["texts"]], Generation(**settings))
            ours = [[list(answer.tokens) for answer in answers] for answers in found]
            assert ours == [text["ids"] for text in case["texts"]], case["way"]


def test_texts_are_written_alone_as_together(t5: Seq2Seq) -> None:
    texts = [text["input"] for text in recipe("t5")["golden"][0]["texts"][:20]]
    settings = Generation(num_beams=3, max_new_tokens=10)
    together = [answers[0].tokens for answers in t5.write(texts, settings)]
    assert together == [t5.write([text], settings)[0][0].tokens for text in texts]


def test_a_draw_comes_out_the_same_again_alone_and_together(t5: Seq2Seq) -> None:
    texts = [text["input"] for text in recipe("t5")["golden"][0]["texts"][:8]]
    settings = Generation(do_sample=True, temperature=1.5, seed=7, num_return_sequences=3, max_new_tokens=8)
    together = [[answer.tokens for answer in answers] for answers in t5.write(texts, settings)]
    assert together == [[answer.tokens for answer in t5.write([text], settings)[0]] for text in texts]
    assert len({tokens for answers in together for tokens in answers}) > 12
    other = t5.write(texts, replace(settings, seed=8))
    assert [[answer.tokens for answer in answers] for answers in other] != together


def test_the_likeliest_of_one_is_the_greedy_answer(t5: Seq2Seq) -> None:
    case = recipe("t5")["golden"][0]
    settings = Generation(do_sample=True, top_k=1, **case["settings"])
    found = t5.write([text["input"] for text in case["texts"][:6]], settings)
    assert [list(answers[0].tokens) for answers in found] == [text["ids"][0] for text in case["texts"][:6]]


def test_whoever_gives_a_temperature_wants_a_draw(tmp_path: Path) -> None:
    made = recipe("t5")
    made["files"]["generation_config.json"] |= {"num_beams": 4, "max_new_tokens": 6}
    tasked.write(tmp_path / "checkpoint", made)
    with TaskModel(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path, threads=1) as model:
        drawn = [model.task("text2text-generation", "x", temperature=2.0, seed=seed) for seed in range(4)]
        assert len({one["generated_text"] for one in drawn}) > 1
        assert all("score" not in one for one in drawn)  # no beams
        greedy = model.task("text2text-generation", "x", temperature=0, num_beams=1)
        assert greedy == model.task("text2text-generation", "x", num_beams=1)
        with pytest.raises(BadRequest, match="top_p without do_sample"):
            model.task("text2text-generation", "x", top_p=0.5, do_sample=False)
        with pytest.raises(BadRequest, match="beams are searched, not drawn"):
            model.task("text2text-generation", "x", do_sample=True, num_beams=2)


def test_a_streamed_answer_is_the_same(tmp_path: Path) -> None:
    made = recipe("t5")
    tasked.write(tmp_path / "checkpoint", made)
    with TaskModel(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path, threads=1) as model:
        for settings in ({"max_new_tokens": 16}, {"temperature": 1.5, "seed": 3}):
            for case in made["golden"][0]["texts"][:10]:
                whole = model.task("summarization", case["input"], **settings)
                with model.stream("summarization", case["input"], **settings) as pieces:
                    told = list(pieces)
                    assert "".join(told) == whole["summary_text"]
                    assert pieces.result == whole
        with pytest.raises(BadRequest, match="beams change their minds"):
            list(model.stream("summarization", "x", num_beams=2))
        with pytest.raises(BadRequest, match="has no parameter 'speed'"):
            model.stream("summarization", "x", speed=2)
        with model.stream("summarization", "x", max_new_tokens=4000, min_new_tokens=4000) as pieces:
            next(iter(pieces))
        with pytest.raises(Cancelled):
            assert pieces.result
        assert model.task("summarization", "x", max_new_tokens=4)["tokens"]  # the model works on


def test_unfinished_characters_are_not_told() -> None:
    told: list[str] = []
    teller = Teller(lambda ids: bytes(ids).decode("utf-8", "replace"), told.append)
    text = "naïve 🎉".encode()
    for end in range(1, len(text) + 1):
        teller.hear(text[:end])
    teller.finish(text.decode())
    assert told == ["n", "a", "ï", "v", "e", " ", "🎉"]


def test_what_the_checkpoint_says_of_its_tasks_is_kept(tmp_path: Path) -> None:
    made = recipe("t5")
    made["config"]["task_specific_params"] = {
        "summarization": {"prefix": "summarize: ", "num_beams": 4, "max_length": 17, "length_penalty": 2.0, "odd": 1},
        "translation_en_to_de": {"prefix": "translate: ", "max_length": 17},
    }
    tasked.write(tmp_path / "checkpoint", made)
    lines = {case["way"]: case["texts"] for case in made["golden"]}
    with TaskModel(convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path, threads=1) as model:
        assert model.tasks == ("text2text-generation", "summarization", "translation")
        text = lines["greedy"][0]["input"]
        greedy = next(one for one in lines["greedy"] if one["input"] == f"summarize: {text}")
        beams = next(one for one in lines["beams"] if one["input"] == f"translate: {text}")
        found = model.task("summarization", text, num_beams=1)
        assert (found["tokens"], found["finish_reason"]) == (len(greedy["ids"][0]), "stop")
        found = model.task("translation", text, src_lang="en", tgt_lang="de", num_beams=4, num_return_sequences=2)
        assert (found["tokens"], len(found["others"])) == (len(beams["ids"][0]), 1)
        assert found["score"] >= found["others"][0]["score"]
        with pytest.raises(BadRequest, match=r"from en to fr\nit names translation_en_to_de"):
            model.task("translation", text, src_lang="en", tgt_lang="fr")
        assert model.task("translation", text, prefix="")["translation_text"]
        with pytest.raises(UnsupportedModel, match="cannot do embeddings: it reads a text and writes another"):
            model.task("embeddings", text)


def test_a_text_is_cut_only_if_that_is_asked_for(t5: Seq2Seq) -> None:
    with pytest.raises(ContextLengthExceeded, match="601 tokens, and this model reads 512"):
        t5.write(["x" * 600])
    assert t5.write(["x" * 600], truncate=True)[0][0].cut == 89


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_length": 1}, "max_length is 1"), ({"num_beams": 0}, "num_beams is 0"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2"), ({"min_length": 30}, "min_length is 30"),
        ({"top_p": 0.0}, "top_p is 0.0"), ({"temperature": -1.0}, "temperature is -1.0"),
        ({"early_stopping": "soon"}, "early_stopping"), ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(settings: dict[str, Any], words: str, t5: Seq2Seq) -> None:
    with pytest.raises(BadRequest, match=words):
        t5.write(["x"], Generation(**settings))


def test_a_model_that_only_reads_is_no_encoder_decoder(tmp_path: Path) -> None:
    tasked.write(tmp_path / "checkpoint", tasked.recipe("bert_states"))
    path = convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path
    with pytest.raises(UnsupportedModel, match="no encoder-decoder"):
        Seq2Seq(path)
