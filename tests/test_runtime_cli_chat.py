"""The chat: its commands, messages of several lines, errors that do not end it, and how it was answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answers import THINKING
from fake_model import FakeModel, Script
from ingle.convert.errors import EngineCrashed, QueueFull
from ingle.runtime.cli.answer import Settings, figures, for_terminal
from ingle.runtime.cli.chat import HELP, Chat, chat_settings, read_message
from ingle.runtime.cli.run import run_command
from ingle.runtime.request import Sampling, Usage

Captured = pytest.CaptureFixture[str]


def typing(*lines: str | BaseException) -> Callable[[str], str]:
    """A keyboard: each call gives the next line; an exception is raised; at the end comes Ctrl-D."""
    left = iter(lines)

    def read(_prompt: str) -> str:
        line = next(left, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def chat(script: Script | None = None, settings: Settings | None = None, system: str | None = None) -> Chat:
    model: Any = FakeModel(script=script)
    return Chat(model, settings or Settings(Sampling()), system, chat_settings(run_command))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one line"], "one line"),
        (["first \\", "second"], "first \nsecond"),
        (['"""', "a", "  b", "", "c", '"""'], "a\n  b\n\nc"),
        (['"""a', 'b"""'], "a\nb"),
        (['  """all in one"""'], "all in one"),
        (['"""', "ends with a backslash \\", '"""'], "ends with a backslash \\"),
        (['not """ a block'], 'not """ a block'),
    ],
)
def test_messages_of_several_lines(lines: list[str], message: str) -> None:
    assert read_message(typing(*lines)) == message


@pytest.mark.parametrize("start", ['"""', "goes on \\"])
@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_an_unfinished_message_is_dropped(start: str, end: type[BaseException]) -> None:
    with pytest.raises(end):
        read_message(typing(start, end()))


def test_a_chat_remembers(capsys: Captured) -> None:
    talk = chat(Script(pieces=("Aye", ".")), system="Be brief.")
    talk.run(typing("Good morrow", "And again"))
    assert capsys.readouterr().out == "Aye.\nAye.\n\n"
    assert talk.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Good morrow"},
        {"role": "assistant", "content": "Aye."},
        {"role": "user", "content": "And again"},
        {"role": "assistant", "content": "Aye."},
    ]


def test_clear_forgets_and_keeps_the_system_message() -> None:
    talk = chat(system="Be brief.")
    talk.run(typing("Good morrow", "/clear"))
    assert talk.messages == [{"role": "system", "content": "Be brief."}]


def test_the_system_message_changes_and_goes(capsys: Captured) -> None:
    talk = chat()
    talk.run(typing("/system", "/system Speak in verse.", "/system"))
    assert capsys.readouterr().out == "(no system message)\nSpeak in verse.\nSpeak in verse.\n\n"
    assert talk.messages == [{"role": "system", "content": "Speak in verse."}]
    talk.run(typing("/system -"))
    assert talk.messages == []


def test_help_lists_every_command(capsys: Captured) -> None:
    chat().run(typing("/help"))
    out = capsys.readouterr().out
    assert all(name in out for name in HELP)


def test_a_setting_reaches_the_model(capsys: Captured) -> None:
    model: Any = FakeModel()
    talk = Chat(model, Settings(Sampling()), None, chat_settings(run_command))
    talk.run(typing("/set temperature 0.2", "/set --top-k 7", "/set max_tokens 2", "/set logit_bias 5=-1", "Hello"))
    asked = model.works[0].asked
    assert asked["sampling"] == Sampling(temperature=0.2, top_k=7, logit_bias={5: -1.0})
    assert asked["max_tokens"] == 2
    assert "the answer ends at 2 tokens" in capsys.readouterr().err
    talk.run(
        typing("/set temperature default", "/set top_k default", "/set logit_bias default", "/set mirostat 2", "Hi")
    )
    assert model.works[1].asked["sampling"] == Sampling(mirostat=2)


@pytest.mark.parametrize("line", ["/set temperature -1", "/set temperature warm", "/set mirostat 9"])
def test_a_bad_setting_changes_nothing_and_says_so(line: str, capsys: Captured) -> None:
    model: Any = FakeModel()
    Chat(model, Settings(Sampling()), None, chat_settings(run_command)).run(typing(line, "Hello"))
    assert model.works[0].asked["sampling"] == Sampling()
    assert line.split()[1] in capsys.readouterr().err


def test_a_setting_without_a_value_is_shown(capsys: Captured) -> None:
    chat(settings=Settings(Sampling(top_p=0.4))).run(typing("/set top-p"))
    assert capsys.readouterr().out == "top_p  0.4\n\n"


def test_set_alone_shows_every_setting(capsys: Captured) -> None:
    chat(settings=Settings(Sampling(temperature=0.3), max_tokens=9)).run(typing("/set"))
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert (shown["temperature"], shown["max_tokens"], shown["typical_p"]) == ("0.3", "9", "1.0")


@pytest.mark.parametrize("line", ["/nonsense", "/set nonsense 1", "/save"])
def test_an_unknown_command_is_not_sent_to_the_model(line: str, capsys: Captured) -> None:
    model: Any = FakeModel()
    Chat(model, Settings(Sampling()), None, chat_settings(run_command)).run(typing(line))
    assert model.works == []
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_path_is_a_message() -> None:
    talk = chat()
    talk.run(typing("/etc/hosts is what?"))
    assert talk.messages[0]["content"] == "/etc/hosts is what?"


@pytest.mark.parametrize("line", ["/exit", "/quit", " /exit "])
def test_exit_leaves(line: str) -> None:
    model: Any = FakeModel()
    Chat(model, Settings(Sampling()), None, ()).run(typing(line, "never asked"))
    assert model.works == []


def test_an_empty_line_asks_nothing() -> None:
    model: Any = FakeModel()
    Chat(model, Settings(Sampling()), None, ()).run(typing("", "   ", '"""', '"""'))
    assert model.works == []


def test_save_writes_the_conversation(tmp_path: Path, capsys: Captured) -> None:
    talk = chat(Script(pieces=("Aye",)))
    talk.run(typing("Good morrow", f"/save {tmp_path}/with spaces.json", "/save /dev/null/x.json"))
    assert json.loads((tmp_path / "with spaces.json").read_text()) == talk.messages
    assert "cannot write" in capsys.readouterr().err


def test_ctrl_c_at_the_prompt_leaves_the_second_time_only() -> None:
    model: Any = FakeModel()
    talk = Chat(model, Settings(Sampling()), None, ())
    talk.run(typing(KeyboardInterrupt(), "Hello", KeyboardInterrupt(), KeyboardInterrupt(), "never asked"))
    assert [turn["content"] for turn in talk.messages if turn["role"] == "user"] == ["Hello"]


def test_an_interrupted_answer_stops_the_work_and_keeps_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    model: Any = FakeModel(script=Script(pieces=("One", " two") + (" more",) * 1000, piece_s=0.001))
    talk = Chat(model, Settings(Sampling()), None, ())
    written: list[str] = []

    def interrupt_after_two(text: str) -> str:
        written.append(text)
        if len(written) == 2:
            raise KeyboardInterrupt
        return text

    monkeypatch.setattr("ingle.runtime.cli.answer.sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("ingle.runtime.cli.answer.for_terminal", interrupt_after_two)
    talk.run(typing("Count"))
    assert model.works[0].cancelled.is_set()
    assert talk.messages[-1] == {"role": "assistant", "content": "One two"}
    assert "[stopped]" in capsys.readouterr().err


def test_an_error_is_printed_and_the_chat_goes_on(capsys: Captured) -> None:
    model: Any = FakeModel(script=Script(fails=QueueFull("all busy", hint="wait")))
    talk = Chat(model, Settings(Sampling()), None, ())
    talk.run(typing("Hello"))
    assert talk.messages == []
    assert "error: all busy\nhint: wait\n" in capsys.readouterr().err
    model.script = Script()
    talk.run(typing("Hello"))
    assert len(talk.messages) == 2


def test_a_prompt_too_long_says_the_numbers_and_is_not_kept(capsys: Captured) -> None:
    talk = chat()
    talk.run(typing("word " * 600, "short"))
    assert "600 tokens" in capsys.readouterr().err
    assert len(talk.messages) == 2


def test_a_dead_engine_ends_the_chat() -> None:
    model: Any = FakeModel(script=Script(fails=EngineCrashed("it died")))
    model.crash()
    with pytest.raises(EngineCrashed):
        Chat(model, Settings(Sampling()), None, ()).run(typing("Hello", "never asked"))


def test_figures_after_each_answer_when_verbose(capsys: Captured) -> None:
    chat(settings=Settings(Sampling(), verbose=True)).run(typing("a b c d"))
    assert "prompt 4 tokens (2 cached), 0.50 s, 4.0 tokens/s; answer 5 tokens, 0.25 s, 20.0 tokens/s" in (
        capsys.readouterr().err
    )


def test_figures_without_time_have_no_speed() -> None:
    assert figures(Usage(3, 3, 0)) == "prompt 3 tokens (3 cached), 0.00 s; answer 0 tokens, 0.00 s"


def test_a_model_cannot_steer_the_terminal() -> None:
    assert for_terminal("a\x1b[2Jb\x07\n\tnaïve 🔥\x9b") == "a\\x1b[2Jb\\x07\n\tnaïve 🔥\\x9b"


def test_reasoning_is_kept_apart_from_the_answer(capsys: Captured) -> None:
    text = "I wonder.\n</think>\n\nFour."
    talk = chat(Script(tuple(text[at : at + 3] for at in range(0, len(text), 3)), template=THINKING))
    talk.run(typing("two and two?"))
    assert capsys.readouterr().out == "Four.\n\n"
    assert talk.messages[-1] == {"role": "assistant", "content": "Four."}
