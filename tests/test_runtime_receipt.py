"""Receipts: what a file says it was made of, what was measured of it, and what ``show``, ``verify`` and ``push`` do
with both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fakehub
import pytest
from altered import copy
from click.testing import CliRunner, Result
from fakehub import FakeHub
from faketools import tiny_gguf
from ingle.convert import convert, gguf, origin
from ingle.convert.errors import ChecksumMismatch, HubError, InputError, StorageError
from ingle.convert.origin import Origin
from ingle.quantize import onepass, quantize
from ingle.runtime import verify
from ingle.runtime.cli.measure import measure_command
from ingle.runtime.cli.push import push_command
from ingle.runtime.cli.show import show_command
from ingle.runtime.cli.verify import verify_command
from ingle.runtime.store import card, figures
from ingle.runtime.store.store import Store
from ingle.runtime.verify import Verdict
from shell import finished

TEXT = Path(__file__).parent / "data" / "bard_heldout.txt"
COMMIT = "c" * 40
ORIGIN = Origin("1.2.3")
PROOF = {"strings": 4000, "renderings": 76, "not_compared": "changed"}


def run(command: Any, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A checkpoint where the Hugging Face cache would have it, its weights under the name of their hash."""
    root = tmp_path / "hub" / "models--org--Tiny-Llama"
    snapshot, blobs = root / "snapshots" / COMMIT, root / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    copy("llama", tmp_path).rename(snapshot)
    weights = snapshot / "model.safetensors"
    blob = weights.rename(blobs / sha256(weights))
    weights.symlink_to(blob)
    (snapshot / "README.md").write_text(
        "---\nlicense: apache-2.0\npipeline_tag: text-generation\nlanguage: [en]\ntags: [tiny]\n---\nA model.\n"
    )
    return snapshot


@pytest.fixture
def made(cached: Path, tmp_path: Path) -> Path:
    out = tmp_path / "tiny-Q8_0.gguf"
    onepass.convert(cached, out, "Q8_0", origin=ORIGIN, prove=lambda file, plain: PROOF)
    return out


# What is in the file


def test_a_file_names_its_checkpoint_and_the_hash_of_each_of_its_files(cached: Path, made: Path) -> None:
    metadata = gguf.read(made).metadata
    assert metadata["ingle.version"] == "1.2.3"
    assert metadata["ingle.source.repository"] == "org/Tiny-Llama"
    assert metadata["ingle.source.revision"] == COMMIT
    recorded = origin.files(metadata)
    assert recorded == {name: sha256(cached / name) for name in recorded}
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(recorded)


def test_both_ways_say_the_same_of_it(cached: Path, made: Path, tmp_path: Path) -> None:
    convert(cached, tmp_path / "plain.gguf", origin=ORIGIN, prove=lambda file: PROOF)
    quantize(tmp_path / "plain.gguf", tmp_path / "two.gguf", "Q8_0")
    assert (tmp_path / "two.gguf").read_bytes() == made.read_bytes()


def test_a_folder_of_ones_own_is_not_named(tmp_path: Path) -> None:
    folder = copy("llama", tmp_path)
    convert(folder, tmp_path / "out.gguf", origin=ORIGIN)
    metadata = gguf.read(tmp_path / "out.gguf").metadata
    assert "ingle.source.repository" not in metadata
    assert str(tmp_path) not in str(metadata)
    assert origin.files(metadata)["model.safetensors"] == sha256(folder / "model.safetensors")


def test_what_the_hub_has_checked_is_believed(tmp_path: Path) -> None:
    known = Origin("1", {"model.safetensors": "ab" * 32})
    convert(copy("llama", tmp_path), tmp_path / "out.gguf", origin=known)
    assert origin.files(gguf.read(tmp_path / "out.gguf").metadata)["model.safetensors"] == "ab" * 32


# Figures


def record(**more: Any) -> dict[str, Any]:
    estimate = {"value": 12.5, "error": 0.25}
    return {
        "on": {"name": "held.txt", "sha256": "ef" * 32},
        "perplexity": estimate,
        "tokens_per_second": 1234.5,
        "predictions": 2048,
        "base": {"name": "base.gguf", "sha256": "ba" * 32},
        "distance": {"kld": {"value": 0.0125, "error": 0.001}, "same_top": {"value": 0.975, "error": 0.01}},
        "machine": {"cpu": "Abacus", "threads": 3},
        "ingle": "1",
        "date": "2026-11-25T12:00:00+00:00",
        **more,
    }


def test_figures_of_the_same_kind_are_replaced_and_those_of_other_bytes_go(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf.figures.json"
    assert figures.read(path) is None
    figures.keep(path, "aa", record())
    figures.keep(path, "aa", record(predictions=4096))
    figures.keep(path, "aa", record(length=128))
    found = figures.read(path)
    assert found and [one["predictions"] for one in found.records] == [4096, 2048]
    figures.keep(path, "bb", record())
    found = figures.read(path)
    assert found and (found.sha256, len(found.records)) == ("bb", 1)
    path.write_text("{")
    with pytest.raises(StorageError, match=r"figures\.json are broken"):
        figures.read(path)


def test_measure_records_and_show_tells(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    small = quantize(bard_gguf["f16"], tmp_path / "small.gguf", "Q4_0").path
    done = run(
        measure_command, small, "--against", bard_gguf["f16"], "--on", TEXT, "--ctx", "64", "--chunks", "2", "--record"
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(run(show_command, small, "--json").stdout)["receipt"]
    (kept,) = shown["measured"]
    assert kept["on"] == {"name": TEXT.name, "sha256": sha256(TEXT)}
    assert kept["base"] == {"name": bard_gguf["f16"].name, "sha256": sha256(bard_gguf["f16"])}
    assert kept["perplexity"]["value"] > 1 and kept["distance"]["kld"]["value"] > 0
    assert kept["machine"]["threads"] >= 1 and kept["machine"]["cpu"]
    line = next(line for line in run(show_command, small).stdout.splitlines() if line.startswith("measured 1"))
    assert f"perplexity {kept['perplexity']['value']:.4f}" in line and f"against {bard_gguf['f16'].name}" in line


def test_show_prints_the_receipt(made: Path) -> None:
    lines = dict(
        line.split(maxsplit=1) for line in run(show_command, made).stdout.replace("made ", "made_").splitlines()
    )
    assert re.match(rf"org/Tiny-Llama at {COMMIT[:12]}, \d+ files of known SHA-256", lines["made_of"])
    assert lines["made_by"] == "ingle 1.2.3"
    assert re.fullmatch(r"\d+ Q8_0, \d+ F32", lines["types"])


# Checking


def test_verify_holds_a_measured_file_to_its_bytes(made: Path) -> None:
    refused = run(verify_command, made)
    assert refused.exit_code != 0 and "no checksum" in str(refused.exception)
    figures.keep(made.with_name(made.name + ".figures.json"), sha256(made), record())
    assert "ok" in run(verify_command, made).stdout
    with made.open("r+b") as file:
        file.seek(-40, 2)
        file.write(b"\xff" * 8)
    assert isinstance(run(verify_command, made).exception, ChecksumMismatch)


def test_verify_compares_with_the_checkpoint_that_is_named(
    made: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prove(checkpoint: Path, file: Path, progress: object) -> Verdict:
        asked.append((checkpoint, file))
        return Verdict(strings=4000, renderings=76, refusals=0)

    monkeypatch.setattr(verify, "prove", prove)
    done = run(verify_command, made, "--source", cached)
    assert done.exit_code == 0 and "4,000 texts" in done.stdout
    assert asked == [(cached, made)]
    (cached / "config.json").write_text("{}")
    changed = run(verify_command, made, "--source", cached, "--json")
    assert isinstance(changed.exception, ChecksumMismatch)
    assert json.loads(changed.stdout)[0]["changed"] == ["config.json"]
    assert run(verify_command, made, made, "--source", cached).exit_code == 2


def test_a_file_that_does_not_say_what_it_was_made_of_is_refused(tmp_path: Path, cached: Path) -> None:
    foreign = tiny_gguf(tmp_path / "foreign.gguf")
    assert isinstance(run(verify_command, foreign, "--source", cached).exception, InputError)


# Pushing


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fakehub.running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.writer)
        yield hub


def push(*arguments: str | Path) -> tuple[int, str, str]:
    """In a process of its own: the client reads its settings when it is imported."""
    return finished("push", *arguments, extra={"HF_HUB_DISABLE_XET": "1"})


def test_a_model_is_pushed_with_its_receipt_and_a_card(made: Path, hub: FakeHub, tmp_path: Path) -> None:
    figures.keep(made.with_name(made.name + ".figures.json"), sha256(made), record())
    plot = tmp_path / "kld.png"
    plot.write_bytes(b"\x89PNG")
    code, out, complaints = push("me/Tiny-GGUF", made, "--plot", plot)
    assert code == 0, complaints
    assert out.strip() == f"{hub.endpoint}/me/Tiny-GGUF/commit/{hub.repos['me/Tiny-GGUF'].commit}"
    files = hub.repos["me/Tiny-GGUF"].files
    assert files["tiny-Q8_0.gguf"] == made.read_bytes()
    receipt = json.loads(files["tiny-Q8_0.gguf.receipt.json"])
    assert receipt["file"] == {"name": "tiny-Q8_0.gguf", "size_bytes": made.stat().st_size, "sha256": sha256(made)}
    assert receipt["source"]["revision"] == COMMIT
    text = files["README.md"].decode()
    front = text.split("---")[1].strip().splitlines()
    assert front == [
        "license: apache-2.0",
        "base_model:",
        "- org/Tiny-Llama",
        "base_model_relation: quantized",
        "quantized_by: me",
        "pipeline_tag: text-generation",
        "language:",
        "- en",
        "tags:",
        "- gguf",
        "- ingle",
        "- tiny",
    ]
    assert "| `tiny-Q8_0.gguf` | Q8_0 | 0.00 GB |" in text
    assert "12.5000 ± 0.2500 | 0.01250 ± 0.00100 | 97.50%" in text
    assert "held.txt" in text and "Abacus, 3 threads" in text and "against base.gguf" in text
    assert "![kld.png](kld.png)" in text and "the tokens of 4,000 texts" in text
    assert sha256(made) in text


def test_a_second_push_keeps_the_rows_of_the_first(made: Path, cached: Path, hub: FakeHub, tmp_path: Path) -> None:
    assert push("me/Tiny-GGUF", made)[0] == 0
    other = tmp_path / "tiny-Q5_0.gguf"
    onepass.convert(cached, other, "Q5_0", origin=ORIGIN)
    code, out, complaints = push("me/Tiny-GGUF", other, "--json")
    assert code == 0, complaints
    assert json.loads(out)["files"] == ["tiny-Q5_0.gguf", "tiny-Q5_0.gguf.receipt.json"]
    text = hub.repos["me/Tiny-GGUF"].files["README.md"].decode()
    assert text.index("`tiny-Q8_0.gguf`") < text.index("`tiny-Q5_0.gguf`")
    assert hub.messages == ["Add tiny-Q8_0.gguf", "Add tiny-Q5_0.gguf"]


def test_a_card_of_somebody_else_is_not_replaced_unless_asked(made: Path, hub: FakeHub) -> None:
    hub.add("me/Tiny-GGUF", {"README.md": b"# My own words\n"})
    code, _, complaints = push("me/Tiny-GGUF", made)
    assert code == 2 and "README.md that ingle did not write" in complaints
    assert hub.repos["me/Tiny-GGUF"].files == {"README.md": b"# My own words\n"}
    assert push("me/Tiny-GGUF", made, "--replace-card")[0] == 0


def test_a_damaged_model_is_not_pushed(made: Path, hub: FakeHub) -> None:
    figures.keep(made.with_name(made.name + ".figures.json"), "0" * 64, record())
    code, _, complaints = push("me/Tiny-GGUF", made)
    assert code == 5 and "is not what it was" in complaints
    assert not hub.repos


def test_without_leave_nothing_is_pushed(made: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    code, _, complaints = push("me/Tiny-GGUF", made)
    assert code == HubError.exit_code and complaints.startswith("error: making me/Tiny-GGUF failed")
    monkeypatch.delenv("HF_TOKEN")
    code, _, complaints = push("me/Tiny-GGUF", made)
    assert code == HubError.exit_code and "hf auth login" in complaints
    assert not hub.repos


@pytest.mark.parametrize("name", ["me", "me/x:Q8_0", "./folder", "me/x@main"])
def test_what_is_no_repository_is_refused(made: Path, name: str) -> None:
    assert run(push_command, name, made).exit_code != 0


def test_a_dry_run_prints_the_card(made: Path) -> None:
    done = run(push_command, "me/Tiny-GGUF", made, "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("---\nlicense: apache-2.0\n") and card.MARK in done.stdout


def test_a_card_quotes_what_yaml_would_read_otherwise() -> None:
    assert card._scalar("apache-2.0") == "apache-2.0"
    assert [card._scalar(text) for text in ("no: yes", "1.0", "# x", "Ünïcode", "yes")] == [
        '"no: yes"', '"1.0"', '"# x"', json.dumps("Ünïcode"), '"yes"',
    ]  # fmt: skip


def test_the_store_does_not_take_figures_for_a_manifest(tmp_path: Path) -> None:
    store = Store(tmp_path / "ingle")
    folder = store.home / "models" / "org" / "tiny"
    folder.mkdir(parents=True)
    (folder / "x.gguf.figures.json").write_text("{}")
    assert store.list() == ()
