"""``ingle run`` for real: the example model, as a program with pipes and at a pseudo-terminal."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from ingle.convert import gguf
from shell import PROGRAM, environment, finished, ingle

NEVER_ENDING = ("--logit-bias", "2=-100")
"""The end-of-turn token of the example model, made impossible."""


@pytest.fixture(scope="module")
def model(bard_gguf: Mapping[str, Path]) -> Path:
    return bard_gguf["f16"]


def test_an_answer_is_the_same_as_text_and_as_json(model: Path) -> None:
    code, text, complaints = finished("run", model, "Who art thou?", "--temp", "0", "--max-tokens", "16")
    assert (code, complaints) == (0, "")
    assert text.strip()
    code, out, _ = finished("run", model, "Who", "art", "thou?", "--temp", "0", "--max-tokens", "16", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["text"] == text.removesuffix("\n")
    assert answer["usage"]["completion_tokens"] > 0
    assert answer["usage"]["prompt_tokens"] > 0


def test_what_is_piped_in_comes_before_the_prompt(model: Path) -> None:
    options = ("--temp", "0", "--max-tokens", "8", "--json")
    _, piped, _ = finished("run", model, "Who art thou?", *options, text_in="Good morrow.\n")
    _, typed, _ = finished("run", model, "Good morrow.\n\nWho art thou?", *options)
    assert json.loads(piped)["text"] == json.loads(typed)["text"]
    assert json.loads(piped)["usage"]["prompt_tokens"] == json.loads(typed)["usage"]["prompt_tokens"]
    code, alone, _ = finished("run", model, *options, text_in="Who art thou?")
    assert code == 0
    assert json.loads(alone)["text"]


def test_a_raw_prompt_is_continued(model: Path) -> None:
    code, out, complaints = finished(
        "run", model, "--raw", "To be, or not", "--max-tokens", "6", "--temp", "0", "--verbose"
    )
    assert code == 0
    assert out.strip()
    assert re.search(r"prompt \d+ tokens \(0 cached\), .* tokens/s; answer 6 tokens, .* tokens/s", complaints)


def test_one_token_too_many_is_exit_code_2_with_the_numbers(model: Path) -> None:
    code, out, complaints = finished("run", model, "word " * 400, "--ctx", "128")
    assert (code, out) == (2, "")
    assert re.search(r"error: the prompt has \d{3,4} tokens; .* window of 128.* prompt of 127", complaints)


def test_a_base_model_says_how_to_use_it(model: Path, tmp_path: Path) -> None:
    source = gguf.read(model)
    metadata = {key: value for key, value in source.metadata.items() if not key.startswith("tokenizer.chat_template")}
    plans = [
        gguf.TensorPlan(name, info.shape, info.type, lambda name=name: [source.tensor(name)])  # type: ignore[misc]
        for name, info in source.tensors.items()
    ]
    gguf.write(tmp_path / "base.gguf", metadata, plans)
    code, _, complaints = finished("run", tmp_path / "base.gguf", "Hello")
    assert code == 2
    assert "has no chat template" in complaints and "--raw" in complaints
    code, out, _ = finished("run", tmp_path / "base.gguf", "--raw", "Hello", "--max-tokens", "4")
    assert (code, bool(out.strip())) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "text_in", "words"),
    [
        (["x.gguf", "--raw", "--system", "s", "prompt"], None, "--raw and --system"),
        (["x.gguf", "prompt", "--stop", ""], None, "--stop"),
        (["x.gguf"], "", "the prompt is empty"),
        (["x.gguf", "  "], None, "the prompt is empty"),
        (["no/such.gguf", "Hello"], None, "no/such.gguf"),
        (["not a name", "Hello"], None, "not a name"),
    ],
)
def test_refusals(arguments: list[str], text_in: str | None, words: str) -> None:
    code, out, complaints = finished("run", *arguments, text_in=text_in)
    assert (code, out) == (2, "")
    assert words in complaints
    assert "Traceback" not in complaints


def test_piped_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"caf\xe9")
    with (tmp_path / "bytes").open("rb") as file:
        code, _, complaints = finished("run", "x.gguf", "What is this?", stdin=file)
    assert code == 2
    assert "not UTF-8 text" in complaints and "byte 3" in complaints


def test_a_closed_stdin_is_no_reason_to_fail(model: Path) -> None:
    code, out, complaints = finished("run", model, "Hi", "--max-tokens", "2", preexec_fn=lambda: os.close(0))
    assert (code, complaints) == (0, "")
    assert out.strip()


def test_a_folder_that_looks_like_a_hub_name_is_not_guessed_at(bard: Path) -> None:
    code, _, complaints = finished("run", "examples/bard", "Hello", cwd=bard.parent.parent)
    assert code == 2
    assert "./examples/bard" in complaints


def test_ctrl_c_ends_a_single_answer_with_130(model: Path) -> None:
    with ingle("run", model, "Speak on", *NEVER_ENDING) as process:
        assert process.stdout is not None and process.stderr is not None and process.stdout.read(8)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, complaints = process.stdout.read(), process.stderr.read()
        process.wait(timeout=30)
    assert process.returncode == 130
    assert complaints.strip() == ""
    assert out.endswith("\n")
    assert time.monotonic() - started < 5


def test_a_reader_that_goes_away_stops_the_answer(model: Path) -> None:
    with ingle("run", model, "Speak on", *NEVER_ENDING) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(8)
        process.stdout.close()
        complaints = process.stderr.read()
    assert (process.returncode, complaints) == (141, "")


class Terminal:
    """A program at a pseudo-terminal, and what it has shown so far."""

    def __init__(self, *arguments: str | Path) -> None:
        self._keyboard, screen = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=environment(TERM="dumb"),
        )
        os.close(screen)
        self.shown = ""

    def type(self, text: str) -> None:
        """Type ``text``; what was shown before is forgotten."""
        self.shown = ""
        os.write(self._keyboard, text.encode())

    def expect(self, pattern: str, within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, f"{pattern!r} not in {self.shown!r}"
            self._read()

    def wait(self) -> int:
        while self._read():
            continue
        return self.process.wait(30)

    def _read(self) -> bool:
        if not select.select([self._keyboard], [], [], 0.1)[0]:
            return self.process.poll() is None
        try:
            data = os.read(self._keyboard, 65536)
        except OSError as error:
            assert error.errno == errno.EIO, "what Linux gives when the other end is closed"
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keyboard)


@pytest.fixture
def terminal(model: Path) -> Iterator[Terminal]:
    opened = Terminal("run", model, "--temp", "0", "--max-tokens", "900")
    try:
        opened.expect(">>> $")
        yield opened
    finally:
        opened.close()


def test_a_chat_at_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("/help\n")
    terminal.expect(r"/clear(.|\n)*>>> $")
    terminal.type("/set max_tokens 6\n")
    terminal.expect(r"max_tokens  6\n(.|\n)*>>> $")
    terminal.type('"""\nGood morrow,\nwho art thou?\n"""\n')
    terminal.expect(r'\.\.\. """\n(.|\n)+\n>>> $')
    terminal.type("And what \\\nis thy name?\n")
    terminal.expect(r"thy name\?\n(.|\n)+\n>>> $")
    terminal.type(f"/save {tmp_path}/chat.json\n")
    terminal.expect(r"saved 4 messages(.|\n)*>>> $")
    turns = json.loads((tmp_path / "chat.json").read_text())
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert turns[0]["content"] == "Good morrow,\nwho art thou?"
    assert turns[2]["content"] == "And what \nis thy name?"
    assert all(turn["content"].strip() for turn in turns)
    terminal.type("\x04")
    assert terminal.wait() == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("/set logit_bias 2=-100\n")
    terminal.expect(r"-100.*\n(.|\n)*>>> $")
    terminal.type("Speak on\n")
    terminal.expect(r"Speak on\n(.|\n)*\w+ \w+ \w+")
    terminal.type("\x03")
    terminal.expect(r"\[stopped\]\n>>> $", within_s=10)
    terminal.type(f"/save {tmp_path}/chat.json\n")
    terminal.expect(r"saved 2 messages(.|\n)*>>> $")
    question, answer = json.loads((tmp_path / "chat.json").read_text())
    assert question["content"] == "Speak on"
    assert answer["content"].strip()
    terminal.type("/set logit_bias default\n")
    terminal.expect(r">>> $")
    terminal.type("/set max_tokens 4\n")
    terminal.expect(r"max_tokens  4(.|\n)*>>> $")
    terminal.type("Go on\n")
    terminal.expect(r"Go on\n(.|\n)+\n>>> $")
    time.sleep(0.3)  # Python's readline loses a signal that comes between its prompt and its wait for a key
    terminal.type("\x03")
    terminal.expect(r"once more(.|\n)*>>> $")
    terminal.type("\x03")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.shown
