"""``ingle convert`` and ``ingle quantize``: what they print, write and refuse. The proof itself is another test's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from altered import copy, rewrite
from click.testing import CliRunner, Result
from ingle.convert import gguf
from ingle.convert.errors import InputError, UnknownType, VerificationFailed
from ingle.convert.progress import Progress
from ingle.quantize import TYPES
from ingle.runtime.cli.convert import checkpoint_name, convert_command
from ingle.runtime.cli.quantize import default_out, quantize_command
from ingle.runtime.logits import Logits
from ingle.runtime.verify import Verdict
from shell import finished

TEXT = Path(__file__).parent / "data" / "bard_heldout.txt"


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """Every proof succeeds at once; the list tells of which folder and file it was asked."""
    asked: list[tuple[Path, Path]] = []

    def prove(checkpoint: Path, file: Path, progress: Progress) -> Verdict:
        assert gguf.read(file).tensors, "the proof sees the whole file"
        asked.append((checkpoint, file))
        return Verdict(strings=4000, renderings=76, refusals=4)

    monkeypatch.setattr("ingle.runtime.verify.prove", prove)
    return asked


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every vocabulary is taken as it was read."""
    monkeypatch.setattr("ingle.runtime.settle.settle", lambda folder, found, progress: found)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def quantize(*arguments: str | Path) -> Result:
    return CliRunner().invoke(quantize_command, [*map(str, arguments)])


def convert(*arguments: str | Path) -> Result:
    return CliRunner().invoke(convert_command, [*map(str, arguments)])


def test_convert_names_the_file_after_the_checkpoint_and_says_what_was_proven(
    bard: Path, here: Path, proven: list[tuple[Path, Path]]
) -> None:
    result = convert(bard)
    assert result.exit_code == 0, result.output
    assert names(here) == ["bard.gguf"]
    assert result.stdout.startswith("bard.gguf  10.1 MB, BF16; proven equal: the tokens of 4,000 texts, 76 rendered")
    assert [checkpoint for checkpoint, _ in proven] == [bard]


def test_convert_prints_json(bard: Path, here: Path, proven: list[tuple[Path, Path]]) -> None:
    report = json.loads(convert(bard, "-o", "out.gguf", "--dtype", "F16", "--json").stdout)
    assert report["dtype"] == "F16"
    assert report["size_bytes"] == (here / "out.gguf").stat().st_size
    proof = report["proof"]
    assert (proof["strings"], proof["renderings"], proof["refusals"]) == (4000, 76, 4)
    assert (proof["prompts"], proof["not_compared"]) == (8, "")
    assert 0 < proof["difference"] < 1e-2


def test_a_failed_proof_leaves_no_file(bard: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Verdict:
        raise VerificationFailed("they differ")

    monkeypatch.setattr("ingle.runtime.verify.prove", refuse)
    assert isinstance(convert(bard).exception, VerificationFailed)
    assert isinstance(quantize(bard).exception, VerificationFailed)
    assert names(here) == []


def test_values_too_large_for_f16_are_clipped_only_when_asked(
    tmp_path: Path, proven: list[tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def enlarge(tensors: dict[str, tuple[str, Any]]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][1][0, 0] = 1e6

    monkeypatch.setattr("ingle.runtime.logits.prove_logits", lambda *given, **options: Logits(not_compared="changed"))
    folder = str(rewrite(copy("llama", tmp_path), enlarge))
    refused = finished("convert", folder, "--dtype", "f16")
    assert refused[0] == 2 and "1 values of blk.0.ffn_up.weight" in refused[2] and "--clip" in refused[2]
    report = json.loads(convert(folder, "-o", "m.gguf", "--dtype", "f16", "--clip", "--json").stdout)
    assert report["clipped"] == {"blk.0.ffn_up.weight": 1}
    assert report["proof"]["not_compared"] == "changed"
    assert "1 values too large for f16" in convert(folder, "-o", "m.gguf", "--dtype", "f16", "--clip").stderr


def test_check_gives_a_verdict_per_item_and_writes_nothing(bard: Path, here: Path) -> None:
    result = convert(bard, "--check")
    assert result.exit_code == 0
    assert "architecture" in result.stdout and "fail" not in result.stdout
    assert json.loads(convert(bard, "--check", "--json").stdout)["ok"] is True
    assert names(here) == []


def test_a_checkpoint_that_cannot_be_converted_is_exit_code_2(here: Path) -> None:
    broken = here / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"architectures": ["NonsenseForCausalLM"], "model_type": "nonsense"}')
    code, out, _ = finished("convert", broken, "--check")
    assert code == 2
    assert "fail" in out
    code, _, complaints = finished("convert", broken)
    assert code == 2
    assert complaints.startswith("error: ")
    assert names(here) == ["broken"]


def test_quantize_says_the_size_before_and_after(bard_gguf: dict[str, Path], here: Path) -> None:
    result = quantize(bard_gguf["f16"], "-o", "small.gguf", "-t", "q6_k")
    size = (here / "small.gguf").stat().st_size
    assert f"({size:,} bytes)" in result.stdout
    assert result.stderr.startswith("Q6_K: ") and f"({size:,} bytes)" in result.stderr
    assert names(here) == ["small.gguf"]


def test_a_dry_run_writes_nothing_and_knows_the_size(bard_gguf: dict[str, Path], here: Path) -> None:
    planned = json.loads(quantize(bard_gguf["f16"], "--dry-run", "--json").stdout)
    done = json.loads(quantize(bard_gguf["f16"], "-o", here / "out.gguf", "--json").stdout)
    assert planned["size_bytes"] == done["size_bytes"] == (here / "out.gguf").stat().st_size
    assert planned["tensors"]["blk.0.attn_q.weight"] == "Q4_K"
    assert names(here) == ["out.gguf"]


def test_a_dry_run_knows_the_size_of_a_checkpoint_quantized(
    bard: Path, here: Path, proven: list[tuple[Path, Path]]
) -> None:
    planned = json.loads(quantize(bard, "-t", "q6_k", "--dry-run", "--json").stdout)
    assert proven == [] and names(here) == []
    quantize(bard, "-t", "q6_k", "-o", "out.gguf")
    assert planned["size_bytes"] == (here / "out.gguf").stat().st_size
    assert planned["tensors"]["blk.0.attn_q.weight"] == "Q6_K"


def test_a_checkpoint_is_converted_proven_and_quantized_and_only_the_end_stays(
    bard: Path, here: Path, proven: list[tuple[Path, Path]]
) -> None:
    result = quantize(bard, "-t", "Q8_0")
    assert result.exit_code == 0, result.output
    assert names(here) == ["bard-Q8_0.gguf"]
    assert [checkpoint for checkpoint, _ in proven] == [bard]
    assert gguf.read(here / "bard-Q8_0.gguf").tensors["blk.0.attn_q.weight"].type.name == "Q8_0"


def test_convert_quantizes_in_the_same_pass(bard: Path, here: Path, proven: list[tuple[Path, Path]]) -> None:
    result = convert(bard, "-t", "q6-k")
    assert result.exit_code == 0, result.output
    assert names(here) == ["bard-Q6_K.gguf"]
    size = (here / "bard-Q6_K.gguf").stat().st_size
    assert result.stdout.startswith("bard-Q6_K.gguf  Q6_K, ") and f"({size:,} bytes)" in result.stdout
    assert "the logits of 8 prompts" in result.stdout and "before it was quantized" in result.stdout
    assert quantize(bard, "-t", "Q6_K", "-o", "other.gguf").exit_code == 0
    assert (here / "other.gguf").read_bytes() == (here / "bard-Q6_K.gguf").read_bytes()
    report = json.loads(convert(bard, "-t", "Q6_K", "--json").stdout)
    assert (report["type"], report["dtype"], report["size_bytes"], report["resumed_bytes"]) == ("Q6_K", "Q6_K", size, 0)
    assert report["proof"]["strings"] == 4000


def test_a_matrix_can_be_given_or_collected_on_the_way(bard: Path, here: Path, proven: list[tuple[Path, Path]]) -> None:
    made = convert(bard, "-t", "Q4_0", "--imatrix", "auto", "--on", TEXT, "-o", "auto.gguf")
    assert made.exit_code == 0, made.output
    (matrix,) = (Path(os.environ["INGLE_HOME"]) / "imatrix").iterdir()
    assert convert(bard, "-t", "Q4_0", "--imatrix", matrix, "-o", "given.gguf").exit_code == 0
    assert names(here) == ["auto.gguf", "given.gguf"]
    assert (here / "auto.gguf").read_bytes() == (here / "given.gguf").read_bytes()


def test_check_says_how_large_a_quantization_will_be(bard: Path, here: Path) -> None:
    items = json.loads(convert(bard, "--check", "-t", "Q4_K_M", "--json").stdout)["items"]
    assert items[-1]["name"] == "quantization"
    assert items[-1]["detail"].startswith("Q4_K_M: about 3.33 MB, 5.35 bits per weight")
    refused = convert(bard, "--check", "-t", "Q4_K_M", "--dtype", "q8_0")
    assert refused.exit_code == 2 and "no type to quantize from" in refused.stdout
    assert names(here) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--imatrix", "x.gguf"],
        ["-t", "IQ2_S", "--imatrix", "auto"],
        ["-t", "Q4_0", "--on", "x.txt"],
        ["--check", "-t", "Q4_0", "--imatrix", "auto", "--on", "x.txt"],
    ],
)
def test_options_that_would_be_ignored_are_refused(bard: Path, here: Path, arguments: list[str]) -> None:
    assert convert(bard, *arguments).exit_code == 2
    assert names(here) == []


def test_the_source_is_refused_as_target_before_anything_is_promised(bard_gguf: dict[str, Path], here: Path) -> None:
    result = quantize(bard_gguf["f16"], "-o", bard_gguf["f16"], "-t", "Q8_0")
    assert isinstance(result.exception, InputError) and "is the source itself" in str(result.exception)
    assert result.stderr == ""


def test_a_file_of_the_checkpoint_is_never_the_target(bard: Path, here: Path, proven: list[tuple[Path, Path]]) -> None:
    copy = here / "copy"
    shutil.copytree(bard, copy)
    (here / "link").hardlink_to(copy / "model.safetensors")
    for out in (copy / "model.safetensors", here / "link"):
        assert isinstance(quantize(copy, "-o", out).exception, InputError)
    assert (copy / "model.safetensors").read_bytes() == (bard / "model.safetensors").read_bytes()
    assert names(here) == ["copy", "link"]


def test_types_are_listed(here: Path) -> None:
    lines = quantize("--types").stdout.splitlines()
    assert [line.split()[0] for line in lines[1 : len(TYPES) + 1]] == list(TYPES)
    listed = json.loads(quantize("--types", "--json").stdout)
    assert {kind["name"]: kind["needs_imatrix"] for kind in listed} == {
        name: kind.needs_imatrix for name, kind in TYPES.items()
    }


@pytest.mark.parametrize(
    ("arguments", "kind", "word"),
    [
        (["nothing.gguf", "-t", "Q9"], UnknownType, "Q9"),
        (["nothing.gguf", "-t", "IQ1_S"], InputError, "importance matrix"),
        (["org/name", "-t", "IQ1_S"], InputError, "importance matrix"),
        (["nothing.gguf"], InputError, "nothing.gguf"),
        (["no/such:Q4_0"], InputError, "no/such"),
    ],
)
def test_refusals_come_before_any_work(arguments: list[str], kind: type[Exception], word: str, here: Path) -> None:
    result = quantize(*arguments)
    assert isinstance(result.exception, kind)
    assert word in str(result.exception)
    assert names(here) == []


@pytest.mark.parametrize("arguments", [[], ["org/name", "--dry-run", "--imatrix", "auto", "--on", "text.txt"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert quantize(*arguments).exit_code == 2


def test_default_names() -> None:
    assert default_out(Path("a/model-F16.gguf"), "Q4_0") == Path("a/model-Q4_0.gguf")
    assert default_out(Path("my-model.gguf"), "Q4_0") == Path("my-model-Q4_0.gguf")
    assert checkpoint_name("org/name@v1.0") == "name"
    assert checkpoint_name(".") == Path.cwd().name
