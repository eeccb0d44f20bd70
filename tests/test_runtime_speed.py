"""``ingle bench``: the figures of a model on this machine, measured once each."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from ingle.convert.errors import InputError
from ingle.runtime.cli.main import ingle
from ingle.runtime.measure import speed
from ingle.runtime.options import LoadOptions


def test_each_figure_is_measured(bard_gguf: Mapping[str, Path]) -> None:
    stages: list[tuple[str, int, int]] = []
    found = speed.measure_speed(
        bard_gguf["f16"], LoadOptions(context_length=256), lambda *stage: stages.append(stage), share_s=0
    )
    assert [stage[1:] for stage in stages] == [(number, 4) for number in range(1, 5)]
    assert (found.first_token.tokens, found.prompt.tokens, found.answer.tokens, found.depth) == (32, 128, 64, 191)
    for figure in (found.first_token, found.prompt, found.answer, found.answer_deep):
        assert figure.runs == 1
        assert 0 < figure.low == figure.median == figure.high
    assert found.load_s > 0
    assert found.info.footprint is not None
    assert 0 < found.resident_bytes < 3 * found.info.footprint.total


def test_a_figure_is_a_median_with_its_range() -> None:
    assert speed.Figure.of(7, [3.0, 1.0, 8.0]) == speed.Figure(7, 3.0, 1.0, 8.0, 3)


def test_a_window_without_room_is_refused(bard_gguf: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="too small"):
        speed.measure_speed(bard_gguf["f16"], LoadOptions(context_length=16))


def test_the_command_prints_figures_and_json(bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure_speed", functools.partial(speed.measure_speed, share_s=0))
    command = ["bench", str(bard_gguf["f16"]), "--ctx", "128"]
    shown = CliRunner().invoke(ingle, command)
    assert shown.exit_code == 0, shown.output
    lines = {line.split("  ")[0]: line for line in shown.stdout.splitlines()}
    assert lines["answer"].endswith("tokens/s")
    assert "128 tokens (asked for)" in lines["context"]
    assert "at most" in lines["memory"]
    said = json.loads(CliRunner().invoke(ingle, [*command, "--json"]).stdout)
    assert said["prompt"]["tokens"] == 64
    assert said["context_length"] == 128
