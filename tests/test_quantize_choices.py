"""Importance matrices and chosen types, against llama.cpp's quantizer called with the same; and what is refused."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from ingle.convert import gguf
from ingle.convert.errors import InputError, UnknownType
from ingle.quantize import TYPES, Choices, Imatrix, Override, imatrix, plan, quantize, weight_type
from ingle.quantize.imatrix import Importance, ImportanceMatrix
from shell import finished
from test_quantize_native import write_llama

TEXT = Path(__file__).parent / "data" / "bard_heldout.txt"
ALL_CHOSEN = ("ffn_down=q6_k", r"blk\.[0-3]\.attn_v=Q8_0", "attn=iq4_nl")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("choices") / "tiny-F16.gguf")


def matrix_for(source: Path, *, without: str = "nothing") -> ImportanceMatrix:
    """Random importance for every weight of the blocks."""
    random = np.random.default_rng(3)
    entries = {
        name: Importance(random.gamma(0.5, 10, (1, info.shape[-1])), np.array([7]))
        for name, info in gguf.read(source).tensors.items()
        if name.startswith("blk.") and "norm" not in name and without not in name
    }
    return ImportanceMatrix(entries, ("random.txt",), 7, "ab" * 32)


@pytest.fixture(scope="module")
def matrix(source: Path) -> Imatrix:
    path = source.with_name("imatrix.gguf")
    imatrix.write(path, matrix_for(source))
    return Imatrix.load(path)


def theirs(source: Path, out: Path, native_id: int, matrix: ImportanceMatrix, chosen: Mapping[str, str]) -> gguf.GGUF:
    """llama.cpp's quantizer, called directly."""
    import llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = native_id, 1
    values = {
        name: (entry.sums.astype(np.float32) / np.float32(entry.counts[0])).ravel()
        for name, entry in matrix.entries.items()
    }
    floats = ctypes.POINTER(ctypes.c_float)
    data = [
        lib.llama_model_imatrix_data(name.encode(), array.ctypes.data_as(floats), array.size)
        for name, array in values.items()
    ]
    params.imatrix = (lib.llama_model_imatrix_data * (len(data) + 1))(*data)
    pairs = [lib.llama_model_tensor_override(p.encode(), weight_type(t).id) for p, t in chosen.items()]
    if pairs:
        params.tt_overrides = (lib.llama_model_tensor_override * (len(pairs) + 1))(*pairs)
    quiet = lib.llama_log_callback(lambda *_: None)  # kept alive while it may be called
    lib.llama_log_set(quiet, None)
    assert lib.llama_model_quantize(bytes(source), bytes(out), ctypes.byref(params)) == 0
    lib.llama_log_set(lib.llama_log_callback(), None)
    return gguf.read(out)


@pytest.mark.parametrize("name", ["Q4_K_M", "IQ2_XS", "Q2_K_S", "Q4_0"])
@pytest.mark.parametrize("chosen", [(), ALL_CHOSEN])
def test_every_tensor_is_llama_cpps_bytes(
    source: Path, matrix: Imatrix, tmp_path: Path, name: str, chosen: tuple[str, ...]
) -> None:
    pairs = dict(text.split("=") for text in chosen)
    want = theirs(source, tmp_path / "theirs", TYPES[name].native_id, matrix.matrix, pairs)
    choices = Choices(matrix, tuple(map(Override.parse, chosen)))
    done = quantize(source, tmp_path / "ours", name, choices=choices, threads=2)
    mine = gguf.read(done.path)
    assert {key: info.type for key, info in mine.tensors.items()} == {k: i.type for k, i in want.tensors.items()}
    assert all(np.array_equal(mine.tensor(key), want.tensor(key)) for key in want.tensors)
    assert done.unweighted == ()


def test_the_file_says_what_it_was_made_with(source: Path, matrix: Imatrix, tmp_path: Path) -> None:
    metadata = gguf.read(quantize(source, tmp_path / "x", "IQ2_XS", choices=Choices(matrix)).path).metadata
    assert metadata["quantize.imatrix.file"] == "imatrix.gguf"
    assert metadata["quantize.imatrix.dataset"] == "random.txt"
    assert metadata["quantize.imatrix.entries_count"] == len(matrix.matrix.entries)
    assert metadata["quantize.imatrix.chunks_count"] == 1
    assert metadata["ingle.imatrix.sha256"] == matrix.sha256
    assert metadata["ingle.imatrix.corpus_sha256"] == "ab" * 32


def test_output_embedding_and_pure(source: Path) -> None:
    found = plan(source, "Q3_K_M", choices=Choices(output=weight_type("q8_0"), embedding=weight_type("q5_k"))).tensors
    assert (found["output.weight"].name, found["token_embd.weight"].name) == ("Q8_0", "Q5_K")
    pure = plan(source, "Q3_K_M", choices=Choices(pure=True)).tensors
    assert {element.name for name, element in pure.items() if "norm" not in name} == {"Q3_K"}


def test_weights_that_the_matrix_lacks_are_named(source: Path, tmp_path: Path) -> None:
    imatrix.write(tmp_path / "part.gguf", matrix_for(source, without="attn_k"))
    part = Choices(Imatrix.load(tmp_path / "part.gguf"))
    assert set(plan(source, "Q4_K_M", choices=part).unweighted) == {f"blk.{layer}.attn_k.weight" for layer in range(8)}
    with pytest.raises(InputError, match=r"blk\.0\.attn_k\.weight as IQ2_XS needs .*, and this one has no values"):
        plan(source, "IQ2_XS", choices=part)


def test_a_matrix_of_another_model_is_refused(source: Path, matrix: Imatrix, tmp_path: Path) -> None:
    wide = write_llama(tmp_path / "wide.gguf", width=512)
    with pytest.raises(InputError, match="of another model: it has 256 values"):
        plan(wide, "Q4_K_M", choices=Choices(matrix))
    foreign = ImportanceMatrix({"enc.0.weight": Importance(np.ones((1, 4)), np.array([1]))}, (), 1)
    imatrix.write(tmp_path / "foreign.gguf", foreign)
    with pytest.raises(InputError, match="importance for none of the weights"):
        plan(source, "Q4_K_M", choices=Choices(Imatrix.load(tmp_path / "foreign.gguf")))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("ffn_dwn=q6_k",), "ffn_dwn=Q6_K changes nothing"),
        (("attn_norm=q8_0",), "attn_norm=Q8_0 changes nothing"),
        (("attn=q8_0", "attn_v=q6_k"), "attn_v=Q6_K changes nothing"),
        (("attn_v=iq2_xs",), "attn_v.weight as IQ2_XS needs an importance matrix"),
    ],
)
def test_a_choice_without_effect_is_refused(source: Path, chosen: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(source, "Q4_K_M", choices=Choices(overrides=tuple(map(Override.parse, chosen))))


def test_a_choice_for_what_is_not_there_is_refused(bard_gguf: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match=r"has no output\.weight"):
        plan(bard_gguf["f16"], "Q4_K_M", choices=Choices(output=weight_type("q8_0")))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("ffn_down", InputError),
        ("=q8_0", InputError),
        ("ffn(=q8_0", InputError),
        ("a=q9", UnknownType),
        ("a=i8", InputError),
    ],
)
def test_a_malformed_choice_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Override.parse(text)


def test_the_command_collects_a_matrix_once(bard_gguf: Mapping[str, Path], tmp_path: Path, ingle_home: Path) -> None:
    options = ("-t", "Q5_0", "--imatrix", "auto", "--on", TEXT, "--json")
    for out in ("one.gguf", "two.gguf"):
        code, said, complaints = finished("quantize", bard_gguf["f16"], *options, "-o", tmp_path / out)
        assert code == 0, complaints
        assert json.loads(said)["unweighted"] == []
        (kept,) = (ingle_home / "imatrix").iterdir()
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    code, said, _ = finished("show", tmp_path / "one.gguf")
    assert "35 weights, 4 chunks of bard_heldout.txt, sha256" in said
    code, _, complaints = finished("quantize", bard_gguf["f16"], "-t", "IQ3_XXS", "--imatrix", kept, "--dry-run")
    assert code == 0, complaints
    for wrong in (("--imatrix", "auto"), ("--on", TEXT)):
        code, _, complaints = finished("quantize", bard_gguf["f16"], *wrong)
        assert (code, "belong together" in complaints) == (2, True)
