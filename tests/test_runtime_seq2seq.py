"""Encoder-decoders: the tokens that they write, against transformers' (tests/reference/make_seq2seq.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tasked
from ingle.convert import convert
from ingle.runtime.tasks.seq2seq import Generation, Seq2Seq

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
