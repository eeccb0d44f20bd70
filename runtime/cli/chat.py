"""The chat at a terminal: a conversation that remembers, a few commands, and Ctrl-C that stops an answer only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import IngleError
from ...convert.files import appearing
from ..request import Sampling
from .answer import Answer, Settings, ask, end_line
from .display import emit_fields, note, print_error

if TYPE_CHECKING:
    from ..model import Model

PROMPT = ">>> "
CONTINUATION = "... "
QUOTES = '"""'
HELP = {
    "/help": "this list",
    "/clear": "forget the conversation",
    "/system [TEXT]": "show or replace the system message; /system - removes it",
    "/set [NAME [VALUE]]": "show the settings, or change one: /set temperature 0.2; the value `default` resets it",
    "/save FILE": "write the conversation as JSON",
    "/exit": "leave, as Ctrl-D does",
    '"""': "starts a message of several lines, which the next one ends; so does a \\ at the end of a line",
    "Ctrl-C": "stops an answer; at the prompt, twice leaves",
}

Option = click.Option
Read = Callable[[str], str]


class Chat:
    """One conversation with a model. ``options`` are the command-line options that ``/set`` may change."""

    def __init__(self, model: Model, settings: Settings, system: str | None, options: Sequence[Option]) -> None:
        self._model = model
        self._settings = settings
        self._system = system
        self._options = {str(option.name): option for option in options}
        self._turns: list[dict[str, str]] = []
        self._commands: Mapping[str, Callable[[str], None]] = {
            "/help": lambda _: emit_fields(HELP),
            "/clear": lambda _: self._turns.clear(),
            "/system": self._change_system,
            "/set": self._change_setting,
            "/save": self._save,
        }

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation so far, the system message first."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        return system + self._turns

    def run(self, read: Read = input) -> None:
        """Talk until Ctrl-D, ``/exit``, or Ctrl-C twice at the prompt."""
        note("/help lists the commands, Ctrl-D leaves")
        interrupted = False
        while True:
            try:
                text = read_message(read)
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                if interrupted:
                    return
                interrupted = True
                note("Ctrl-C once more, or Ctrl-D, leaves")
                continue
            interrupted = False
            if text.strip() in ("/exit", "/quit"):
                return
            self.take(text)

    def take(self, text: str) -> None:
        """Do a command, or answer a message. Errors are printed; the chat goes on unless the engine is gone."""
        try:
            if (command := _command(text)) is not None:
                self._obey(*command)
            elif text.strip():
                self._answer(text)
        except IngleError as error:
            print_error(error.message, error.hint)
            if not self._model.alive:
                raise

    def _obey(self, name: str, argument: str) -> None:
        command = self._commands.get(name)
        if command is None:
            note(f"there is no command {name}; /help lists them")
        else:
            command(argument)

    def _answer(self, text: str) -> None:
        """Ask; what was written of a stopped answer stays in the conversation, an unanswered message does not."""
        question = {"role": "user", "content": text}
        answer = ask(self._model, [*self.messages, question], self._settings)
        try:
            answer.show()
        except KeyboardInterrupt:
            answer.cancel()
            note(" [stopped]")
        else:
            end_line(answer.text)
            self._note_outcome(answer)
        if answer.text:
            self._turns += [question, {"role": "assistant", "content": answer.text}]

    def _note_outcome(self, answer: Answer) -> None:
        if answer.stop_detail == "context_window":
            note("the context window is full: /clear starts afresh, --ctx makes it larger")
        elif answer.finish_reason == "length":
            note(f"the answer ends at {self._settings.max_tokens} tokens: /set max_tokens changes that")
        if self._settings.verbose:
            answer.note_figures()

    def _change_system(self, argument: str) -> None:
        if argument:
            self._system = None if argument == "-" else argument
        click.echo(self._system or "(no system message)")

    def _change_setting(self, argument: str) -> None:
        if not argument:
            emit_fields({name: str(_setting(self._settings, name)) for name in self._options})
            return
        given, _, value = argument.partition(" ")
        option = self._options.get(given.lstrip("-").replace("-", "_"))
        if option is None:
            note(f"there is no setting {given}; /set lists them")
            return
        name = str(option.name)
        try:
            self._set(name, _parse(option, value.strip()) if value else _setting(self._settings, name))
        except click.BadParameter as error:
            note(error.format_message())

    def _set(self, name: str, value: Any) -> None:
        if name == "max_tokens":
            self._settings = replace(self._settings, max_tokens=value)
        else:
            self._settings = replace(self._settings, sampling=replace(self._settings.sampling, **{name: value}))
        emit_fields({name: str(value)})

    def _save(self, argument: str) -> None:
        if not argument:
            note("name a file: /save conversation.json")
            return
        path = Path(argument).expanduser()
        try:
            with appearing(path) as partial:
                partial.write_text(json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            note(f"cannot write {path}: {error.strerror}")
        else:
            note(f"saved {len(self.messages)} messages to {path}")


def chat_settings(command: click.Command) -> tuple[Option, ...]:
    """The options of ``command`` that a chat may change: how tokens are chosen, and how many."""
    names = {field.name for field in fields(Sampling)} | {"max_tokens"}
    return tuple(option for option in command.params if isinstance(option, Option) and option.name in names)


def read_message(read: Read) -> str:
    """One message: a line, lines joined by a backslash at their ends, or everything between two lines of quotes.

    Raises:
        EOFError, KeyboardInterrupt: whatever was typed of the message is dropped.
    """
    line = read(PROMPT)
    if line.lstrip().startswith(QUOTES):
        return _read_block(line.lstrip().removeprefix(QUOTES), read)
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(read(CONTINUATION))
    return "\n".join(lines)


def _read_block(first: str, read: Read) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(read(CONTINUATION))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines).strip("\n")


def enable_line_editing() -> None:
    """Arrow keys and a history of lines, where Python has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (importing it is what turns it on)


def _command(text: str) -> tuple[str, str] | None:
    """``/name argument`` as a pair; None for a message. A path such as ``/etc/hosts`` is no command."""
    name, _, argument = text.strip().partition(" ")
    return (name, argument.strip()) if name.startswith("/") and name[1:].isalpha() else None


def _setting(settings: Settings, name: str) -> Any:
    return getattr(settings if name == "max_tokens" else settings.sampling, name)


def _parse(option: Option, value: str) -> Any:
    """A value as the command line would read it; ``default`` is what holds there without the option."""
    if value == "default":
        return _setting(Settings(Sampling()), str(option.name))
    return option.process_value(click.Context(click.Command("set")), (value,) if option.multiple else value)
