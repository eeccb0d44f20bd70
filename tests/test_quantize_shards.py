"""Pieces of a model: the bytes of llama.cpp's quantizer, kept, and what they say of the error of a type."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ingle.convert import gguf
from ingle.convert.ggml import TYPES
from ingle.quantize import Choices, Imatrix, Override, blocks, imatrix, quantize
from ingle.quantize import shards as shards_room
from ingle.quantize.shards import Shards, file_sha256, shards
from test_quantize_choices import matrix_for
from test_quantize_native import write_llama

KINDS = ("IQ2_XXS", "Q2_K", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_K", "Q5_1", "Q6_K")


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("shards") / "tiny-F16.gguf")


@pytest.fixture(scope="module")
def matrix(source: Path) -> Imatrix:
    path = source.with_name("imatrix.gguf")
    imatrix.write(path, matrix_for(source))
    return Imatrix.load(path)


@pytest.fixture
def pieces(source: Path, matrix: Imatrix, tmp_path: Path, pool: ThreadPoolExecutor) -> Shards:
    file = gguf.read(source)
    return shards(tmp_path, file, [name for name in file.tensors if "norm" not in name], matrix.matrix, pool)


def test_a_piece_has_the_bytes_of_llama_cpps_quantizer(source: Path, matrix: Imatrix, pieces: Shards) -> None:
    names = [name for name in pieces.weights if "attn_k" in name or "attn_v" in name]  # small ones
    kinds = dict(zip(names, KINDS, strict=False))
    overrides = tuple(Override(f"^{name}$".replace(".", r"\."), TYPES[kind]) for name, kind in kinds.items())
    quantize(source, source.with_name("mixed.gguf"), "Q8_0", choices=Choices(matrix, overrides))
    theirs = gguf.read(source.with_name("mixed.gguf"))
    for name, kind in kinds.items():
        assert theirs.tensors[name].type is TYPES[kind]
        np.testing.assert_array_equal(pieces.data(name, TYPES[kind]), theirs.tensor(name), err_msg=f"{name} {kind}")


def test_a_piece_is_made_once(pieces: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pieces.piece("blk.0.attn_q.weight", TYPES["Q4_K"])
    monkeypatch.setattr(blocks, "encode", None)
    assert pieces.piece("blk.0.attn_q.weight", TYPES["Q4_K"]) == first
    with pytest.raises(TypeError):
        pieces.piece("blk.0.attn_q.weight", TYPES["Q5_K"])


def test_the_error_of_a_type_is_its_share_of_the_products(
    pieces: Shards, matrix: Imatrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_room, "SAMPLE_WEIGHTS", 1 << 20)
    name = "blk.2.ffn_down.weight"
    values = pieces.source.tensor(name).astype(np.float64)
    weights = matrix.matrix.entries[name].weights.astype(np.float64)
    seen = blocks.decode(pieces.data(name, TYPES["Q3_K"]), TYPES["Q3_K"], values.shape[1])
    expected = ((values - seen) ** 2 @ weights).sum() / (values**2 @ weights).sum()
    assert pieces.error(name, TYPES["Q3_K"]) == pytest.approx(expected, rel=1e-4)
    assert pieces.error(name, TYPES["F16"]) == 0
    finer = [pieces.error(name, TYPES[kind]) for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")]
    assert finer == sorted(finer, reverse=True)


def test_types_that_need_importance_fit_only_weights_that_have_some(pieces: Shards) -> None:
    assert pieces.weights["blk.0.attn_q.weight"].fits(TYPES["IQ2_XXS"])
    assert not pieces.weights["output.weight"].fits(TYPES["IQ2_XXS"])
    assert pieces.weights["output.weight"].fits(TYPES["Q2_K"])


def test_other_bytes_or_another_matrix_have_other_pieces(
    source: Path, matrix: Imatrix, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    file, names = gguf.read(source), ["blk.0.attn_q.weight"]
    mine = shards(tmp_path, file, names, matrix.matrix, pool).folder
    assert shards(tmp_path, file, names, matrix.matrix, pool).folder == mine
    assert shards(tmp_path, file, names, None, pool).folder != mine
    changed = tmp_path / "changed.gguf"
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    assert file_sha256(changed, tmp_path) != file_sha256(source, tmp_path)
    assert shards(tmp_path, gguf.read(changed), names, matrix.matrix, pool).folder != mine


def test_what_was_not_used_for_longest_makes_room(
    source: Path, tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "00001-Q8_0.gguf").write_bytes(bytes(1000))
    monkeypatch.setattr(shards_room, "MOST_BYTES", 999)
    mine = shards(tmp_path, gguf.read(source), ["blk.0.attn_q.weight"], None, pool)
    assert not old.exists()
    assert mine.folder.exists()
