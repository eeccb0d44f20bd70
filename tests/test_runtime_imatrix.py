"""Importance matrices against llama-imatrix's, the file format both ways, and from the command line."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import sweeping
from ingle.convert import convert, gguf
from ingle.convert.errors import BadGGUF, EngineError, InputError
from ingle.convert.ggml import TYPES
from ingle.quantize import imatrix, plan
from ingle.quantize.imatrix import Importance, ImportanceMatrix
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.llama.node import Product
from ingle.runtime.llama.scoring import ScoringContext, ScoringOptions, Span
from ingle.runtime.measure import activations
from ingle.runtime.measure.activations import Gathered, collect
from ingle.runtime.measure.wish import Wish
from shell import finished

HERE = Path(__file__).parent
TEXT = HERE / "data" / "bard_heldout.txt"
GOLDEN = json.loads((HERE / "golden" / "imatrix.json").read_text())


def same_as_golden(found: ImportanceMatrix, golden: Mapping[str, Mapping[str, list[float]]]) -> None:
    assert found.entries.keys() == golden.keys()
    for name, want in golden.items():
        sums = found.entries[name].sums.ravel()
        assert found.entries[name].counts.tolist() == want["counts"], name
        assert sums.sum() == pytest.approx(want["sum"], rel=1e-4), name
        assert np.linalg.norm(sums) == pytest.approx(want["norm"], rel=1e-4), name
        assert sums[:: len(sums) // 4][:4] == pytest.approx(want["samples"], rel=1e-3), name


def test_the_example_model_has_the_matrix_that_llama_imatrix_finds(bard_gguf: Mapping[str, Path]) -> None:
    found = collect(bard_gguf["f32"], Wish(TEXT, length=GOLDEN["chunk"]))
    same_as_golden(found, GOLDEN["bard"])
    assert found.chunk_count == next(iter(GOLDEN["bard"].values()))["counts"][0] // GOLDEN["chunk"]


def test_experts_are_counted_as_llama_imatrix_counts_them(tmp_path: Path) -> None:
    sweeping.write_checkpoint(tmp_path / "mixture", sweeping.load("mixtral"))
    model = convert(tmp_path / "mixture", tmp_path / "mixture.gguf", "f32").path
    same_as_golden(collect(model, Wish(TEXT, length=GOLDEN["chunk"])), GOLDEN["mixtral"])


def test_inputs_by_matrix_and_by_expert() -> None:
    inputs = np.arange(2 * 3 * 2, dtype=np.float32).reshape(1, 2, 3, 2)
    by_head = activations._by_matrix(Product("w", (1, 2), inputs, 0, None))
    assert by_head.tolist() == [[0 + 4 + 16, 1 + 9 + 25], [36 + 64 + 100, 49 + 81 + 121]]
    tokens = np.array([[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]], np.float32)  # two tokens, each with two inputs
    sums, counts = activations._by_expert(Product("w", (1, 4), tokens, 0, None), np.array([[3, 0], [0, 3]], np.int32))
    assert sums.tolist() == [[9 + 25, 16 + 36], [0, 0], [0, 0], [1 + 49, 4 + 64]]
    assert counts.tolist() == [2, 0, 0, 2]


def test_a_value_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(EngineError, match="input of w is not finite"):
        Gathered()._add("w", np.array([[np.inf]], np.float32), np.array([1]))


def made(**values: list[float]) -> ImportanceMatrix:
    entries = {
        name: Importance(np.array([row]), np.array([2], np.int64)) for name, row in values.items()
    }  # fmt: skip
    return ImportanceMatrix(entries, ("a.txt",), 1, "aa")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    before = ImportanceMatrix(
        {
            "blk.0.x.weight": Importance(np.array([[1.0, 2.5, 0.0]]), np.array([4])),
            "blk.0.e.weight": Importance(np.array([[8.0, 4.0], [0.0, 0.0]]), np.array([4, 0])),
        },
        ("a.txt",),
        2,
        "ab" * 32,
    )
    imatrix.write(tmp_path / "m.gguf", before)
    after = imatrix.read(tmp_path / "m.gguf")
    assert (after.datasets, after.chunk_size, after.chunk_count, after.corpus_sha256) == (("a.txt",), 2, 2, "ab" * 32)
    assert after.entries["blk.0.x.weight"].weights.tolist() == [0.25, 0.625, 0]
    assert after.entries["blk.0.e.weight"].weights.tolist() == [2, 1, 1, 1]
    assert after.entries["blk.0.e.weight"].unused == 1


def test_merged_as_if_both_texts_had_been_one() -> None:
    both = made(a=[1, 2]).merged(made(a=[3, 4], b=[5]))
    assert both.entries["a"].sums.tolist() == [[4, 6]]
    assert both.entries["a"].counts.tolist() == [4]
    assert both.entries["b"].sums.tolist() == [[5]]
    assert (both.datasets, both.corpus_sha256) == (("a.txt", "a.txt"), "aa,aa")
    with pytest.raises(InputError, match="a has"):
        made(a=[1, 2]).merged(made(a=[1, 2, 3]))


def test_files_of_something_else_are_refused(tmp_path: Path, bard_gguf: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="no importance matrix"):
        imatrix.read(bard_gguf["f32"])
    (tmp_path / "old.dat").write_bytes(b"\x01\0\0\0")
    with pytest.raises(InputError, match="older format"):
        imatrix.read(tmp_path / "old.dat")
    with pytest.raises(BadGGUF):
        imatrix.read(tmp_path / "none")
    values = np.ones(4, np.float32)
    for name, tensors, message in (
        ("half", {"w.in_sum2": values}, "but not their counts"),
        ("odd", {"w.in_sum2": values, "w.counts": np.ones(3, np.float32)}, "do not divide"),
        ("negative", {"w.in_sum2": -values, "w.counts": values[:1]}, "that are none"),
    ):
        plans = [
            gguf.TensorPlan(key, value.shape, TYPES["F32"], lambda value=value: [value])  # type: ignore[misc]
            for key, value in tensors.items()
        ]
        gguf.write(tmp_path / name, {"general.type": "imatrix"}, plans)
        with pytest.raises(BadGGUF, match=message):
            imatrix.read(tmp_path / name)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"general.type": "imatrix"}, "is an importance matrix"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "is the vision part of a model"),
    ],
)
def test_what_is_no_model_is_neither_loaded_nor_quantized(
    metadata: dict[str, gguf.Value], words: str, tmp_path: Path
) -> None:
    values = np.ones((32, 32), np.float32)
    gguf.write(tmp_path / "x.gguf", metadata, [gguf.TensorPlan("w", values.shape, TYPES["F32"], lambda: [values])])
    with pytest.raises(InputError, match=words):
        NativeModel(tmp_path / "x.gguf")
    with pytest.raises(InputError, match=words):
        plan(tmp_path / "x.gguf", "Q8_0")
    code, out, _ = finished("show", tmp_path / "x.gguf")
    assert (code, words.removeprefix("is an ").removeprefix("is the ") in out, "template" in out) == (0, True, False)


def test_neither_the_model_nor_the_text_is_written_over(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    text, model = tmp_path / "text.txt", tmp_path / "model.gguf"
    text.write_text("Who goes there? " * 100)
    model.write_bytes(bard_gguf["f32"].read_bytes())
    for target, words in ((text, "is what is read"), (model, "is what is read"), (tmp_path, "is a folder")):
        before = target.read_bytes() if target.is_file() else b""
        code, out, complaints = finished("imatrix", model, "--on", text, "--ctx", "64", "-o", target)
        assert (code, out) == (2, "")
        assert words in complaints
        assert not before or target.read_bytes() == before


def test_a_matrix_that_is_not_there_is_said_to_be(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    code, _, complaints = finished("quantize", bard_gguf["f32"], "--imatrix", tmp_path / "none.gguf", "--dry-run")
    assert code == 2
    assert "none.gguf" in complaints


def test_ctrl_c_ends_the_step_and_is_never_raised_in_the_callback(bard_gguf: Mapping[str, Path]) -> None:
    """Raised before the first line of our function it would be lost in C, and the step would go on without a node."""
    seen: list[str] = []

    def watch(_node: int, _ask: bool) -> bool:
        seen.append("begun")
        signal.raise_signal(signal.SIGINT)
        seen.append("ended")
        return True

    usual = signal.getsignal(signal.SIGINT)
    model = NativeModel(bard_gguf["f32"])
    context = ScoringContext(model, ScoringOptions(1, 64, 64, 1), watch)
    try:
        with pytest.raises(KeyboardInterrupt):
            context.compute([Span(0, 0, np.arange(8, dtype=np.int32), 8)], fresh=True)
    finally:
        context.close()
        model.close()
    assert seen == ["begun", "ended"]
    assert signal.getsignal(signal.SIGINT) is usual


def test_the_command_writes_a_file_and_adds_to_it(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "one.gguf", tmp_path / "two.gguf"
    options = ("--on", TEXT, "--ctx", "64", "--chunks", "2")
    code, out, complaints = finished("imatrix", bard_gguf["f32"], *options, "-o", first)
    assert code == 0, complaints
    assert "35 weights, 2 chunks of 64 tokens" in out
    code, out, complaints = finished("imatrix", bard_gguf["f32"], *options, "-o", second, "--add", first, "--json")
    assert code == 0, complaints
    assert json.loads(out)["chunks"] == 4
    once, twice = imatrix.read(first), imatrix.read(second)
    name = "blk.0.ffn_down.weight"
    assert np.allclose(2 * once.entries[name].sums, twice.entries[name].sums)
