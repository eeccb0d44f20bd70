"""``ingle fit``: what fits a machine, of a checkpoint in every type and of a file as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ingle.quantize import TYPES, quantize
from ingle.runtime import machine
from ingle.runtime.cli.main import ingle
from ingle.runtime.engine.memory import PROGRAM_BYTES
from ingle.runtime.fit import fit
from ingle.runtime.options import LoadOptions

GIB = 1 << 30


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda size: monkeypatch.setattr(machine, "available_memory_bytes", lambda: size)


def test_a_checkpoint_is_sized_in_every_type_as_it_will_be(bard: Path, tmp_path: Path, memory: Any) -> None:
    from ingle.convert import convert

    memory(16 * GIB)
    report = fit(str(bard), LoadOptions(context_length=512))
    rows = {row.type: row for row in report.rows}
    assert list(rows) == list(TYPES)
    assert {row.verdict for row in report.rows} == {"fits"}
    assert [window.context for window in rows["Q8_0"].windows] == [512, 1024]
    assert rows["IQ2_M"].needs_imatrix
    source = tmp_path / "bard.gguf"
    convert(bard, source, "bf16")
    assert rows["BF16"].file_bytes == source.stat().st_size
    for name in ("Q8_0", "Q4_K_M", "IQ4_NL"):
        done = quantize(source, tmp_path / f"{name}.gguf", name)
        assert rows[name].file_bytes == pytest.approx(done.size_bytes, abs=512), "but for what quantizing notes in it"
        assert fit(str(done.path), LoadOptions(context_length=512)).rows[0].windows == rows[name].windows


def test_a_file_says_what_it_takes_and_what_would_fit(bard_gguf: Mapping[str, Path], memory: Any) -> None:
    memory(16 * GIB)
    half = LoadOptions(context_length=512, kv_cells=512, flash_attention="on")
    needed = fit(str(bard_gguf["f16"]), half).rows[0].windows[0].footprint
    assert needed.kv == 512 * 5 * 4 * 32 * 2 * 2
    memory(needed.total * 16 // 15 + 16)
    (row,) = fit(str(bard_gguf["f16"]), LoadOptions(flash_attention="on")).rows
    assert (row.type, row.verdict, row.largest, row.chosen) == ("F16", "smaller context", 512, 512)
    assert not row.windows[-1].fits
    assert row.windows[-1].footprint.kv == 2 * needed.kv


def test_what_fits_in_no_way_is_said_to(bard_gguf: Mapping[str, Path], memory: Any) -> None:
    memory(PROGRAM_BYTES // 2)
    (row,) = fit(str(bard_gguf["f16"])).rows
    assert (row.verdict, row.largest, row.chosen) == ("too large", 0, 0)
    memory((PROGRAM_BYTES + 12_000_000) * 16 // 15)
    (row,) = fit(str(bard_gguf["f32"])).rows
    assert row.verdict == "from disk"


def test_the_command_prints_a_table_and_json(bard_gguf: Mapping[str, Path], memory: Any) -> None:
    memory(8 * GIB)
    shown = CliRunner().invoke(ingle, ["fit", str(bard_gguf["f16"])])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[0].split() == ["TYPE", "FILE", "1,024", "DEFAULT", "VERDICT"]
    assert shown.stdout.splitlines()[1].split()[0] == "F16"
    assert shown.stdout.splitlines()[1].endswith("1,024    fits")
    assert "8.59 GB available" in shown.stderr
    said = json.loads(CliRunner().invoke(ingle, ["fit", str(bard_gguf["f16"]), "--json"]).stdout)
    window = said["rows"][0]["windows"][0]
    assert window["total_bytes"] == sum(window["footprint"].values())
    assert said["context_trained"] == 1024
