"""Decoders that embed texts, against sentence-transformers (tests/reference/make_embedders.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from ingle.convert import convert
from ingle.quantize import quantize
from ingle.runtime.tasks.model import TaskModel
from numpy.typing import NDArray

RECIPES = Path(__file__).parent / "embedders"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


def cosines(path: Path, golden: list[dict[str, Any]]) -> NDArray[np.float64]:
    with TaskModel(path, threads=1) as model:
        assert model.tasks == ("embeddings", "sentence-similarity", "feature-extraction")
        found = []
        for case in golden:
            ours = np.array(model.task("embeddings", case["text"], prompt=case["prompt"])["embedding"])
            theirs = np.array(case["embedding"])
            found.append(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        return np.array(found)


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_embedded_as_by_sentence_transformers(name: str, tmp_path: Path) -> None:
    made = recipe(name)
    encoders.write(tmp_path / "checkpoint", made)
    path = convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path
    assert cosines(path, made["golden"]).min() > 0.9999
    quantize(path, tmp_path / "q8.gguf", "Q8_0")
    # All texts together: of rows of 64 rounded to 8 bits, the last digits of a sum move a single text by 0.0015.
    assert cosines(tmp_path / "q8.gguf", made["golden"]).mean() > 0.998


@pytest.mark.parametrize("name", NAMES)
def test_what_sentence_transformers_6_saves_is_the_same(name: str, tmp_path: Path) -> None:
    made = recipe(name)
    folders = [str(Path(path).parent) for path in made["saved"] if "_Dense/" in path]
    dense = {f"{folder}/model.safetensors": shapes
             for folder, shapes in zip(folders, made["more_tensors"].values(), strict=True)}  # fmt: skip
    encoders.write(tmp_path / "checkpoint", {**made, "files": made["saved"], "more_tensors": dense})
    path = convert(tmp_path / "checkpoint", tmp_path / "m.gguf", "f32").path
    assert cosines(path, made["golden"][:2]).min() > 0.9999
