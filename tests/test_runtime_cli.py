"""The command line itself: lazy commands, one error printer, exit codes, shared options, what it displays."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import errors
from ingle.convert.errors import IngleError
from ingle.convert.progress import silent
from ingle.runtime.cli import display, main
from ingle.runtime.cli.display import ProgressBar, emit_table, human_seconds, human_size, human_wait, progress_line
from ingle.runtime.cli.options import load_options, sampling_options
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Sampling
from shell import environment, ingle

HEAVY = {
    "llama_cpp",
    "numpy",
    "transformers",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "pydantic",
    "huggingface_hub",
    "jinja2",
}
SHOW_HEAVY = "import sys; print(sorted(set(sys.modules) & set(sys.argv[1].split(','))))"


def loaded_by(program: str) -> str:
    command = [sys.executable, "-c", f"{program}\n{SHOW_HEAVY}", ",".join(HEAVY)]
    return subprocess.run(command, env=environment(), text=True, capture_output=True, check=True).stdout


def test_help_and_the_import_of_the_runtime_load_nothing_heavy() -> None:
    assert loaded_by("import ingle.runtime") == "[]\n"
    help_out = loaded_by("from ingle.runtime.cli.main import ingle\ningle.main(['--help'], standalone_mode=False)")
    assert help_out.endswith("[]\n")
    assert all(line in help_out for line in main.COMMANDS.values())


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_of_the_list_is_there(name: str) -> None:
    command = main.ingle.get_command(click.Context(main.ingle), name)
    assert command is not None
    assert command.name == name
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def run_main(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def raising(error: BaseException) -> click.Command:
    def command() -> None:
        raise error

    return click.Command("run", callback=command)


ALL_ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IngleError)]


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_our_errors_print_message_and_hint_and_give_their_exit_code(
    kind: type[IngleError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: raising(kind("it broke", hint="mend it")))
    assert run_main(["run"]) == kind.exit_code
    assert capsys.readouterr() == ("", "error: it broke\nhint: mend it\n")


def test_an_unforeseen_error_is_one_line_and_the_way_to_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: raising(ZeroDivisionError("by nothing")))
    assert run_main(["run"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ZeroDivisionError: by nothing\nhint: ")
    assert "INGLE_DEBUG=1" in error
    assert "Traceback" not in error
    monkeypatch.setenv("INGLE_DEBUG", "1")
    run_main(["run"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_is_130_and_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: raising(KeyboardInterrupt()))
    assert run_main(["run"]) == 130
    assert capsys.readouterr().err.strip() == ""


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["quantize", "--threads", "0", "x"], []])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(arguments) == 2
    assert "Usage: ingle" in capsys.readouterr().err


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ingle ")


def test_a_reader_that_goes_away_is_no_error() -> None:
    with ingle("quantize", "--types") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read()
    assert process.returncode == 141
    assert complaints == ""


def test_colour_only_where_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert display.wants_colour() is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert display.wants_colour() is False


def collect(arguments: list[str]) -> tuple[LoadOptions, Sampling]:
    caught: list[Any] = []

    @click.command()
    @load_options
    @sampling_options
    def command(options: LoadOptions, sampling: Sampling) -> None:
        caught.extend((options, sampling))

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return caught[0], caught[1]


def test_without_flags_the_options_are_the_defaults() -> None:
    assert collect([]) == (LoadOptions(), Sampling())


EVERY_OPTION = """
    --ctx 2048 --kv-cells 4096 --parallel 3 --max-queue 4 --prefill-chunk 128 --itl-target 0.1
    --threads 1 --threads-prefill 2 --cache-ram 1GB --cache-disk 2GB
    --gpu-layers -1 --kv-type q8_0 --flash-attention off --repack off --no-mmap --no-prefix-cache --speculate off
    --draft small.gguf --rest-after 9
    --lora a.gguf --temp 0.5 --top-k 5 --top-p 0.6
    --min-p 0.1 --typical-p 0.7 --repeat-penalty 1.1 --repeat-last-n 32 --frequency-penalty 0.2
    --presence-penalty -0.3 --dry-multiplier 0.8 --dry-base 2 --dry-allowed-length 3 --dry-penalty-last-n 99
    --dry-sequence-breaker . --xtc-probability 0.4 --xtc-threshold 0.2 --mirostat 2 --mirostat-tau 4
    --mirostat-eta 0.2 --logit-bias 7=-100 --logit-bias 8=1.5 --seed 42
"""


def test_every_option_reaches_its_field() -> None:
    options, sampling = collect([*EVERY_OPTION.split(), "--mmproj", __file__])
    default_options, default_sampling = LoadOptions(), Sampling()
    assert all(
        getattr(options, f.name) != getattr(default_options, f.name)
        for f in fields(LoadOptions)
        if f.name != "sampling"
    )
    assert all(getattr(sampling, f.name) != getattr(default_sampling, f.name) for f in fields(Sampling))
    assert sampling.logit_bias == {7: -100.0, 8: 1.5}
    assert (sampling.mirostat, sampling.dry_sequence_breakers, options.context_length) == (2, (".",), 2048)


@pytest.mark.parametrize(
    "arguments",
    ["--logit-bias x=1", "--logit-bias 1", "--top-p 1.5", "--ctx 0", "--kv-type q3", "--mirostat 3", "--threads 513"],
)
def test_a_bad_value_names_its_option(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["run", "model.gguf", *arguments.split()]) == 2
    assert arguments.split()[0] in capsys.readouterr().err


@given(st.integers(0, 10**18))
def test_sizes_are_short_and_near(num_bytes: int) -> None:
    number, unit = human_size(num_bytes).split()
    shown = float(number) * 1000 ** display.SIZE_UNITS.index(unit)
    assert abs(shown - num_bytes) <= 0.006 * num_bytes
    assert len(number) <= 8


def test_times_for_people() -> None:
    assert [human_seconds(value) for value in (0.841, 59.0, 125.2)] == ["0.84 s", "59.00 s", "2 min 05 s"]


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table(("A", "LONG"), [("wide cell", "x"), ("y", "")])
    assert capsys.readouterr().out == "A          LONG\nwide cell  x\ny\n"


@given(st.text(max_size=20), st.integers(-5, 10**12), st.integers(-5, 10**12), st.integers(10, 200))
def test_a_progress_line_fits_the_terminal(stage: str, done: int, total: int, columns: int) -> None:
    assert len(progress_line(stage, done, total, columns)) < columns


def test_a_bar_appears_after_a_second_and_goes_without_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ingle.runtime.cli.display.time.monotonic", lambda: now[0])
    out = io.StringIO()
    bar = ProgressBar(out)
    bar("convert", 1, 4)
    assert out.getvalue() == ""
    now[0] = 1.5
    bar("convert", 2, 4)
    assert "convert" in out.getvalue() and "50%" in out.getvalue()
    shown = len(out.getvalue())
    bar("convert", 3, 4)
    assert len(out.getvalue()) == shown, "redrawn ten times a second at most"
    bar.clear()
    assert out.getvalue().endswith("\r\x1b[2K")


def test_a_bar_says_how_long_the_rest_of_its_stage_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ingle.runtime.cli.display.time.monotonic", lambda: now[0])
    out = io.StringIO()
    bar = ProgressBar(out)
    for stage, seconds, done, total in (("convert", 0.0, 0, 100), ("convert", 2.0, 20, 100), ("verify", 3.0, 50, 100)):
        now[0] = seconds
        bar(stage, done, total)
    assert "20%  8 s left" in out.getvalue()
    assert out.getvalue().endswith("50%"), "a new stage has no speed yet"
    now[0] = 5.0
    bar("verify", 60, 100)
    assert out.getvalue().endswith("60%  8 s left"), "ten in two seconds, whatever was there before"


def test_waits_for_people() -> None:
    assert [human_wait(value) for value in (0.2, 59, 125, 4800)] == ["1 s", "59 s", "2 min 05 s", "1 h 20 min"]


def test_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with display.progress_bar() as progress:
        assert progress is silent


def test_json_keeps_characters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    display.emit_json({"text": "naïve 🔥"})
    out = capsys.readouterr().out
    assert "naïve 🔥" in out
    assert json.loads(out) == {"text": "naïve 🔥"}


def test_a_narrow_locale_does_not_end_the_output() -> None:
    program = "import click\nfrom ingle.runtime.cli import main\n"
    program += (
        "main.LazyGroup.get_command = lambda *_: click.Command('x', callback=lambda: print('ï'))\nmain.main(['x'])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, text=True, check=True
    )
    assert done.stdout == "\\xef\n"


def test_interrupted_work_leaves_nothing_and_says_nothing(tmp_path: Path, bard: Path) -> None:
    """Ctrl-C reaches the whole process group, children too, as in a terminal."""
    with ingle("convert", bard, "-o", tmp_path / "bard.gguf", start_new_session=True) as process:
        while process.poll() is None and not list(tmp_path.iterdir()):
            continue
        os.killpg(process.pid, signal.SIGINT)
        out, complaints = process.communicate(timeout=30)
    assert process.returncode == 130, complaints
    assert (out.strip(), complaints.strip()) == ("", "")
    assert list(tmp_path.iterdir()) == []
