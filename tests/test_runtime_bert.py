"""The compiled layers of BERT, held to llama.cpp's and to f32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tasked
from ingle.convert import gguf
from ingle.convert.errors import Cancelled, UnsupportedModel
from ingle.quantize import quantize
from ingle.runtime.bert import native, weights
from ingle.runtime.bert.layers import Layers
from ingle.runtime.llama.abort import AbortFlag
from ingle.runtime.tasks.encoder import Encoder

WAYS = sorted(native.ways())
SHAPES = {"heads of 32": (96, 3, 160), "heads of 64": (128, 2, 96), "heads of 16": (64, 4, 160)}
TEXTS = ["", "a", "Shall I compare thee to a summer's day?", "好" * 30, ("one " * 40, "two"), ("a pair", "é" * 60)]
AS_NEAR = 1.3  # of llama.cpp's distance from f32, by the root of the mean square


def checkpoint(width: int, heads: int, inner: int) -> dict[str, Any]:
    """A recipe like that of the tiny BERT, in another shape."""
    recipe = tasked.recipe("bert_states")
    config = recipe["config"]
    sizes = {config["hidden_size"]: width, config["intermediate_size"]: inner}
    config |= {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner}
    recipe["tensors"] = {name: [sizes.get(size, size) for size in shape] for name, shape in recipe["tensors"].items()}
    return recipe


@pytest.fixture(scope="module", params=SHAPES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bert")
    recipe = checkpoint(*SHAPES[request.param])
    return {kind: tasked.converted(folder / kind, recipe, kind) for kind in ("f32", "bf16")}


def read(path: Path, way: str | None, threads: int = 1) -> list[np.ndarray]:
    with Encoder(path, threads=threads) as encoder:
        encoder.way = way
        return encoder.read([encoder.encode(text) for text in TEXTS])


def distance(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    return float(np.sqrt(np.mean((np.concatenate(found) - np.concatenate(truth)) ** 2)))


def test_the_layers_are_compiled() -> None:
    assert native.library() is not None, "is there no C++ compiler?"
    assert list(native.ways())[-1] == "plain"


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_as_near_to_f32_as_llama_cpp(files: dict[str, Path], way: str) -> None:
    truth, theirs = read(files["f32"], None), read(files["bf16"], None)
    ours = read(files["bf16"], way)
    assert 0 < distance(ours, truth) < AS_NEAR * distance(theirs, truth)


@pytest.mark.parametrize("way", WAYS)
def test_a_text_is_read_alone_and_by_several_threads_as_with_others(files: dict[str, Path], way: str) -> None:
    together = read(files["bf16"], way)
    with Encoder(files["bf16"], threads=3) as encoder:
        encoder.way = way
        for text, states in zip(TEXTS, together, strict=True):
            assert np.array_equal(encoder.read([encoder.encode(text)])[0], states)
        long = encoder.encode("word " * 80)
        (apart,) = encoder.read([long])
        assert np.array_equal(Layers(gguf.read(files["bf16"]), way).states([long.ids])[0], apart)


def test_a_quantized_file_is_read_at_least_as_truly(files: dict[str, Path], tmp_path: Path) -> None:
    small = quantize(files["f32"], tmp_path / "small.gguf", "Q8_0").path
    assert weights.fits(gguf.read(small))
    truth = read(files["f32"], None)
    assert distance(read(small, "plain"), truth) < AS_NEAR * distance(read(small, None), truth)


def test_what_is_stored_more_exactly_is_left_to_llama_cpp(files: dict[str, Path], tmp_path: Path) -> None:
    half = quantize(files["f32"], tmp_path / "half.gguf", "F16").path
    fits = {path.stem: weights.fits(gguf.read(path)) for path in (*files.values(), half)}
    assert fits == {"f32": False, "bf16": True, "half": False}
    with Encoder(files["bf16"]) as encoder:
        assert encoder.way == native.quick_way()
    with Encoder(files["f32"]) as encoder:
        assert encoder.way is None


@pytest.mark.parametrize("name", ["modernbert_states", "nomic_states", "bert_states"])
def test_other_layers_are_left_to_llama_cpp(name: str, tmp_path: Path) -> None:
    """Those of other families, and heads whose width no vector holds."""
    assert not weights.fits(gguf.read(tasked.converted(tmp_path, tasked.recipe(name), "bf16")))


def test_the_flag_ends_it(files: dict[str, Path]) -> None:
    flag = AbortFlag()
    layers = Layers(gguf.read(files["bf16"]), "plain", flag)
    flag.set()
    with pytest.raises(Cancelled):
        layers.states([[1, 2, 3]])
    flag.clear()
    assert layers.states([[1, 2, 3]])[0].shape[0] == 3


def test_a_way_that_is_not_here_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedModel, match="sse9"):
        Layers(gguf.read(files["bf16"]), "sse9")
