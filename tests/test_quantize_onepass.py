"""One pass against two steps, byte for byte; what a killed run leaves, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from altered import copy, rewrite
from ingle.convert import convert as convert_plainly
from ingle.convert import gguf
from ingle.convert.errors import EngineCrashed, InputError, UnsupportedModel, VerificationFailed
from ingle.convert.files import PARTIAL_SUFFIX
from ingle.quantize import Choices, Imatrix, Override, imatrix, onepass, quantize, weight_type
from ingle.quantize.imatrix import Importance, ImportanceMatrix
from ingle.quantize.onepass import OnePass
from ingle.quantize.proving import Plain
from sweeping import load, write_checkpoint

PROOF = {"strings": 4000, "renderings": 76}
KILLED = """
import os, signal, sys
from pathlib import Path
from ingle.quantize import onepass

def stop(stage, done, total):
    if stage == "quantize" and done >= float(sys.argv[3]) * total:
        os.kill(os.getpid(), signal.SIGKILL)

folder, out = map(Path, sys.argv[1:3])
onepass.convert(folder, out, "Q6_K", prove=lambda file, plain: {"strings": 4000}, progress=stop)
"""


def prove(file: Path, plain: Plain | None = None) -> dict[str, Any]:
    assert gguf.read(file).tensors
    return PROOF


def two_steps(folder: Path, out: Path, kind: str, dtype: str = "auto", choices: Choices | None = None) -> bytes:
    """What ``convert`` and then llama.cpp's quantizer make."""
    plain = out.with_name("plain.gguf")
    convert_plainly(folder, plain, dtype, prove=prove)
    quantize(plain, out, kind, choices=choices)
    return out.read_bytes()


def one_pass(folder: Path, out: Path, kind: str, **settings: Any) -> OnePass:
    return onepass.convert(folder, out, kind, prove=prove, **settings)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("Q8_0", "auto"),
        ("Q4_K_M", "auto"),
        ("Q4_0", "f32"),
        ("Q3_K_S", "f16"),
        ("IQ4_NL", "bf16"),
        ("F16", "auto"),
        ("MXFP4_MOE", "auto"),
    ],
)
def test_the_bytes_are_those_of_two_steps(bard: Path, tmp_path: Path, kind: str, dtype: str) -> None:
    want = two_steps(bard, tmp_path / "two.gguf", kind, dtype)
    done = one_pass(bard, tmp_path / "one.gguf", kind, dtype=dtype, threads=2)
    assert (tmp_path / "one.gguf").read_bytes() == want
    assert (done.quantized.size_bytes, done.conversion.size_bytes, done.resumed_bytes) == (len(want), len(want), 0)
    assert done.conversion.dtype == done.quantized.type == kind
    assert {path.name for path in tmp_path.iterdir()} == {"one.gguf", "two.gguf", "plain.gguf"}


@pytest.mark.parametrize("name", ["gpt2", "gemma", "phi3", "mistral"])
def test_rows_that_are_changed_or_gathered_on_their_way(tmp_path: Path, name: str) -> None:
    folder = copy(name, tmp_path)
    want = two_steps(folder, tmp_path / "two.gguf", "Q5_0")
    one_pass(folder, tmp_path / "one.gguf", "Q5_0")
    assert (tmp_path / "one.gguf").read_bytes() == want


def test_narrow_rows_fall_back_as_they_do_in_two_steps(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    want = two_steps(folder, tmp_path / "two.gguf", "Q4_K_M")
    done = one_pass(folder, tmp_path / "one.gguf", "Q4_K_M")
    assert (tmp_path / "one.gguf").read_bytes() == want
    assert {fallback.given for fallback in done.quantized.fallbacks} == {"Q5_0", "Q8_0"}


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    """A mixture of experts: tensors of three dimensions."""
    return write_checkpoint(tmp_path / "mixtral", load("mixtral"))


def test_each_expert_has_its_own_importance(experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, random = tmp_path / "shapes.gguf", np.random.default_rng(3)
    convert_plainly(experts, plain)
    entries = {}
    for name, info in gguf.read(plain).tensors.items():
        if name.startswith("blk.") and len(info.shape) > 1:
            matrices = info.shape[0] if len(info.shape) > 2 else 1
            entries[name] = Importance(random.gamma(0.5, 10, (matrices, info.shape[-1])), np.full(matrices, 7))
    imatrix.write(tmp_path / "imatrix.gguf", ImportanceMatrix(entries, ("random.txt",), 7))
    chosen = Choices(
        Imatrix.load(tmp_path / "imatrix.gguf"), (Override.parse("ffn_down=q5_1"),), embedding=weight_type("q8_0")
    )
    want = two_steps(experts, tmp_path / "two.gguf", "Q4_0", choices=chosen)
    monkeypatch.setattr(onepass, "PIECE_WEIGHTS", 100)  # pieces of a few rows, which do not divide a matrix
    done = one_pass(experts, tmp_path / "one.gguf", "Q4_0", choices=chosen)
    assert (tmp_path / "one.gguf").read_bytes() == want
    assert done.quantized.unweighted == ()


def killed_at(folder: Path, out: Path, share: float) -> Path:
    """Run until that share is done, kill the process, and return what it left."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(out), str(share)], env=environment, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = out.parent.glob(f".{out.name}.*{PARTIAL_SUFFIX}")
    assert not out.exists()
    return left


def again(folder: Path, out: Path) -> OnePass:
    return onepass.convert(folder, out, "Q6_K", prove=lambda file, plain: {"strings": 4000})


@pytest.mark.parametrize("share", [0.5, 1])
def test_what_a_killed_run_did_is_not_done_again(bard: Path, tmp_path: Path, share: float) -> None:
    whole = again(bard, tmp_path / "whole.gguf").quantized
    out = tmp_path / "out.gguf"
    killed_at(bard, out, share)
    done = again(bard, out)
    assert out.read_bytes() == whole.path.read_bytes()
    assert share * 0.9 * whole.size_bytes < done.resumed_bytes <= whole.size_bytes
    assert {path.name for path in tmp_path.iterdir()} == {"whole.gguf", "out.gguf"}


def test_a_piece_that_is_not_what_it_was_is_made_again(bard: Path, tmp_path: Path) -> None:
    whole = again(bard, tmp_path / "whole.gguf").quantized
    out = tmp_path / "out.gguf"
    left = killed_at(bard, out, 1)
    data = bytearray(left.read_bytes())
    data[whole.size_bytes // 2] ^= 1
    left.write_bytes(data)
    done = again(bard, out)
    assert out.read_bytes() == whole.path.read_bytes()
    everything = sum(info.nbytes for info in gguf.read(out).tensors.values())
    assert 0 < done.resumed_bytes < everything


def test_another_source_or_another_wish_begins_anew(bard: Path, tmp_path: Path) -> None:
    folder = rewrite(copy("llama", tmp_path), lambda tensors: None)
    out = tmp_path / "out.gguf"
    killed_at(folder, out, 1)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert again(folder, out).resumed_bytes == 0
    out.unlink()
    killed_at(folder, out, 1)
    assert one_pass(folder, out, "Q6_K", choices=Choices(output=weight_type("q4_0"))).resumed_bytes == 0
    assert not list(tmp_path.glob(f".*{PARTIAL_SUFFIX}"))


def test_clipped_values_are_counted_over_the_runs(tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, tuple[str, Any]]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][1][0, :3] = 1e6

    folder, out = rewrite(copy("llama", tmp_path), enlarge), tmp_path / "out.gguf"
    with pytest.raises(UnsupportedModel, match="too large for f16"):
        one_pass(folder, out, "Q8_0", dtype="f16")
    code = KILLED.replace('"Q6_K"', '"Q6_K", dtype="f16", clip=True')
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(out), "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    done = onepass.convert(folder, out, "Q6_K", dtype="f16", clip=True, prove=prove)
    assert done.resumed_bytes > 0
    assert done.conversion.clipped == {"blk.0.ffn_up.weight": 3}


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    def spoil(tensors: dict[str, tuple[str, Any]]) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"][1][3, 5] = np.nan

    folder = rewrite(copy("llama", tmp_path), spoil)
    with pytest.raises(UnsupportedModel, match=r"blk\.1\.ffn_down\.weight holds values that are not finite"):
        one_pass(folder, tmp_path / "out.gguf", kind)
    assert {path.name for path in tmp_path.iterdir()} == {"llama"}


def test_a_worker_that_dies_is_an_error_with_its_signal(bard: Path, tmp_path: Path) -> None:
    def end(stage: str, done: int, total: int) -> None:
        for child in psutil.Process().children():
            child.kill()

    with pytest.raises(EngineCrashed, match=r"SIGKILL on tensor \S+\.weight"):
        one_pass(bard, tmp_path / "out.gguf", "Q2_K", progress=end)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_proof_or_an_interrupt_leaves_nothing(bard: Path, tmp_path: Path) -> None:
    def interrupt(file: Path, plain: Plain) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onepass.convert(bard, tmp_path / "out.gguf", "Q8_0", prove=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_proof_is_made_beside_the_work_and_ends_it_when_it_fails(bard: Path, tmp_path: Path) -> None:
    failed, done_after = threading.Event(), []

    def fail(file: Path, plain: Plain) -> dict[str, Any]:
        assert gguf.read(file).metadata["general.architecture"] == "llama"
        failed.set()
        raise VerificationFailed("they differ")

    def watch(stage: str, done: int, total: int) -> None:
        assert failed.wait(60)
        done_after.append(done / total)

    with pytest.raises(VerificationFailed, match="they differ"):
        onepass.convert(bard, tmp_path / "out.gguf", "Q2_K", prove=fail, progress=watch)
    assert done_after[0] == 0 and done_after[-1] < 1
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_removes_what_the_proof_looks_at(bard: Path, tmp_path: Path) -> None:
    seen: list[Path] = []
    over = threading.Event()

    def look(_: Path, plain: Plain) -> dict[str, Any]:
        with plain() as path:
            seen.append(path)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(10)
        return PROOF

    with pytest.raises(KeyboardInterrupt):
        onepass.convert(bard, tmp_path / "out.gguf", "Q8_0", prove=look)
    over.set()
    assert seen
    assert list(tmp_path.iterdir()) == []


def test_a_file_has_no_name_before_it_is_proven(bard: Path, tmp_path: Path) -> None:
    out, written, seen = tmp_path / "out.gguf", threading.Event(), []

    def late(file: Path, plain: Plain) -> dict[str, Any]:
        assert written.wait(60)
        seen.append(out.exists())
        return PROOF

    def watch(stage: str, done: int, total: int) -> None:
        if done == total:
            written.set()

    onepass.convert(bard, out, "Q8_0", prove=late, progress=watch)
    assert seen == [False] and out.exists()


def test_a_proof_may_look_at_the_conversion_that_is_not_written(bard: Path, tmp_path: Path) -> None:
    def look(file: Path, plain: Plain) -> dict[str, Any]:
        with plain() as unquantized:
            found.append(unquantized)
            wide, narrow = gguf.read(unquantized), gguf.read(file)
            assert wide.tensors["blk.0.ffn_up.weight"].type.name == "BF16"
            assert narrow.tensors["blk.0.ffn_up.weight"].type.name == "Q8_0"
            assert wide.tensors.keys() == narrow.tensors.keys()
        return PROOF

    found: list[Path] = []
    onepass.convert(bard, tmp_path / "out.gguf", "Q8_0", prove=look)
    assert [path.exists() for path in found] == [False]
    assert gguf.read(tmp_path / "out.gguf").metadata["ingle.proof"].strip() == '{"strings": 4000, "renderings": 76}'  # type: ignore[union-attr]


def test_what_is_quantized_already_is_no_source(bard: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no type to quantize from"):
        onepass.convert(bard, tmp_path / "out.gguf", "Q4_0", dtype="q8_0")
    with pytest.raises(InputError, match="importance matrix"):
        onepass.convert(bard, tmp_path / "out.gguf", "IQ2_XS")


def test_two_at_once_do_not_disturb_each_other(bard: Path, tmp_path: Path) -> None:
    out, others = tmp_path / "out.gguf", []

    def meanwhile(file: Path, plain: Plain) -> dict[str, Any]:
        others.append(one_pass(bard, out, "Q8_0").quantized.path.read_bytes())
        return PROOF

    onepass.convert(bard, out, "Q8_0", prove=meanwhile)
    assert others == [out.read_bytes()]
    assert list(tmp_path.iterdir()) == [out]


def test_a_vision_part_comes_beside_it(tmp_path: Path) -> None:
    from seeing import copy as copy_vision

    done = one_pass(copy_vision("smolvlm", tmp_path), tmp_path / "out.gguf", "Q8_0")
    assert done.conversion.projector is not None
    assert gguf.read(done.conversion.projector.path).metadata["general.type"] == "mmproj"
