"""``ingle run``: one answer, or a chat."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import InputError, TemplateError
from ..options import LoadOptions
from ..request import Sampling
from .answer import Settings, ask, complete, end_line
from .chat import Chat, chat_settings, enable_line_editing
from .display import emit_json, human_seconds, note, progress_bar
from .options import load_options, sampling_options

if TYPE_CHECKING:
    from ..model import Model

STDIN = 0


def _no_empty_text(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    if "" in texts:
        raise click.BadParameter("an empty text occurs everywhere")
    return texts


@click.command("run", short_help="Ask a model once, or chat with it.")
@click.argument("model")
@click.argument("prompt", nargs=-1)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A picture to show with PROMPT (PNG, JPEG, WebP); may be given several times.",
)
@click.option("--system", help="System message of the chat.")
@click.option("--raw", is_flag=True, help="Continue PROMPT as it is, without the model's chat template.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens of an answer. [default: the window's rest]")
@click.option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    callback=_no_empty_text,
    help="End the answer before TEXT; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer and its figures as JSON.")
@click.option("--verbose", is_flag=True, help="Speed figures on stderr.")
@sampling_options
@load_options
@click.pass_context
def run_command(
    context: click.Context,
    model: str,
    prompt: tuple[str, ...],
    images: tuple[Path, ...],
    system: str | None,
    raw: bool,
    max_tokens: int | None,
    stop: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    sampling: Sampling,
    options: LoadOptions,
) -> None:
    """Answer PROMPT with MODEL; without a PROMPT, chat at the terminal.

    MODEL is org/name, org/name:TYPE, a checkpoint folder (./folder) or a .gguf file; what is not here yet is fetched,
    converted, proven and quantized first. Text piped in is put before PROMPT.
    """
    text = _prompt(prompt)
    _require_sense(text, images, system, raw, as_json)
    settings = Settings(sampling, max_tokens, stop, verbose)
    with _load(model, options, verbose) as loaded:
        if not raw:
            _require_template(loaded, model)
        if text is not None:
            _answer_once(loaded, settings, _content(text, images), system, raw, as_json)
        else:
            enable_line_editing()
            Chat(loaded, settings, system, chat_settings(context.command)).run()


def _prompt(words: tuple[str, ...]) -> str | None:
    """What to answer: the text piped in, then the words of the command line; None when there is to be a chat."""
    parts = [part for part in (_piped(), " ".join(words)) if part.strip()]
    if not parts and (words or not os.isatty(STDIN)):
        raise InputError("there is nothing to answer: the prompt is empty", hint='ingle run MODEL "a question"')
    text = "\n\n".join(parts)
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise InputError("the prompt is not UTF-8 text")
    return text or None


def _piped() -> str:
    """Text on stdin, if it is a pipe or a file."""
    try:
        kind = os.fstat(STDIN).st_mode
    except OSError:  # closed
        return ""
    if not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)):
        return ""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"what was piped in is not UTF-8 text: {error.reason} at byte {error.start:,}") from error


def _content(text: str, images: tuple[Path, ...]) -> str | list[dict[str, Any]]:
    """What the user says: a text, or pictures and then the text."""
    if not images:
        return text
    return [*({"type": "image", "image": image} for image in images), {"type": "text", "text": text}]


def _require_sense(text: str | None, images: tuple[Path, ...], system: str | None, raw: bool, as_json: bool) -> None:
    if images and (text is None or raw):
        raise click.UsageError("--image needs a PROMPT, and a template that has a place for it: no --raw")
    if text is None and (raw or as_json):
        raise click.UsageError(f"--{'raw' if raw else 'json'} needs a PROMPT: a chat has no use for it")
    if raw and system is not None:
        raise click.UsageError("--raw and --system exclude each other: without a template there is no system message")


def _load(name: str, options: LoadOptions, verbose: bool) -> Model:
    from ..model import Model
    from ..store.names import HubName, parse

    if isinstance(parse(name), HubName) and Path(name).is_dir():
        raise InputError(
            f"{name} is a folder here and could be a model of the hub",
            hint=f"write ./{name} for the folder, {name}@main for the hub",
        )
    started = time.monotonic()
    with progress_bar() as progress:
        model = Model.load(name, options=options, progress=progress)
    for warning in model.info.warnings:
        note(f"warning: {warning}")
    if verbose:
        note(f"loaded {model.info.path} in {human_seconds(time.monotonic() - started)}")
    return model


def _require_template(model: Model, name: str) -> None:
    if not model.info.chat_templates:
        raise TemplateError(
            f"{name} has no chat template: it continues text, it does not chat",
            hint=f'ingle run --raw {name} "Once upon a time"',
        )


def _answer_once(
    model: Model,
    settings: Settings,
    content: str | list[dict[str, Any]],
    system: str | None,
    raw: bool,
    as_json: bool,
) -> None:
    if raw and isinstance(content, str):
        answer = complete(model, content, settings)
    else:
        messages = [{"role": "system", "content": system}] if system else []
        answer = ask(model, [*messages, {"role": "user", "content": content}], settings)
    if as_json:
        "".join(answer)
        emit_json(answer.as_json())
    else:
        try:
            answer.show()
        finally:
            end_line(answer.text)
    if settings.verbose:
        answer.note_figures()
