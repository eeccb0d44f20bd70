"""``ingle task``: what models do besides to continue a text. One command per task of the catalogue."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...convert.errors import BadRequest
from .display import emit_json, emit_table, note, progress_bar

STDIN = "-"
LISTS = ("labels", "entities", "answers", "results")
UNSHOWN = ("logit", "index")


class TaskGroup(click.Group):
    """The tasks of the catalogue, which is imported when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from ..tasks.catalogue import TASKS

        return list(TASKS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from ..tasks.catalogue import TASKS

        return _command(TASKS[cmd_name]) if cmd_name in TASKS else None


@click.command("task", cls=TaskGroup, short_help="Classify, tag, answer, embed, rerank ...")
def task_command() -> None:
    """Classify, tag, answer, embed, rerank ...: `ingle task NAME MODEL TEXT...`.

    MODEL is a name, a checkpoint folder or a GGUF file. A text that is longer than the model reads is refused, unless
    --truncate asks for it to be cut, which is then said.
    """


def _command(task: Any) -> click.Command:
    def run(model: str, texts: tuple[str, ...], **options: Any) -> None:
        _run(task.name, model, texts, options)

    shown = {name.rstrip("?*"): name for name in task.fields}
    metavar = " ".join(f"{name.upper()}{'...' if marked.endswith('*') else ''}" for name, marked in shown.items()
                       if not marked.endswith("?"))  # fmt: skip
    parameters: list[click.Parameter] = [
        click.Argument(["model"]),
        click.Argument(["texts"], nargs=-1, metavar="TEXT..." if _one_text(task.fields) else metavar),
        *(_option(name, parameter) for name, parameter in task.parameters.items()),
        click.Option(["--input", "source"], type=click.Path(path_type=Path), help="A JSONL file, one input a line."),
        click.Option(["--output"], type=click.Path(path_type=Path), help="Results of --input, one a line; an "
                     "interrupted run goes on where it was."),
        click.Option(["--threads"], type=click.IntRange(1), help="CPU threads; by default one per core."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ]  # fmt: skip
    if task.stream is not None:
        about = "Print an answer while it is written: greedily or drawn, without beams."
        parameters.append(click.Option(["--stream", "streams"], is_flag=True, help=about))
    about = f"{task.help[0].upper()}{task.help[1:]}. A TEXT of - is read from standard input."
    return click.Command(task.name, callback=run, params=parameters, help=about, short_help=task.help)


def _option(name: str, parameter: Any) -> click.Option:
    flag = f"--{name.replace('_', '-')}"
    about = f"{parameter.help[:1].upper()}{parameter.help[1:]}."
    default = parameter.default if parameter.default not in (None, "", (), False) else None
    if default is not None:
        about += f" [default: {', '.join(default) if isinstance(default, tuple) else default}]"
    if parameter.kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=about)
    return click.Option([flag, name], type=parameter.kind, multiple=parameter.several, help=about)


def _run(name: str, model: str, texts: Sequence[str], options: Mapping[str, Any]) -> None:
    from ..tasks.model import TaskModel

    settings = dict(options)
    source, output, as_json = settings.pop("source"), settings.pop("output"), settings.pop("as_json")
    threads, streams = settings.pop("threads"), settings.pop("streams", False)
    given = {key: value for key, value in settings.items() if value not in (None, ())}
    if streams and (source or as_json):
        raise BadRequest("--stream prints texts", hint="leave --json and --input out", param="stream")
    _check(texts, source, output)
    inputs = [] if source else _inputs(name, [_read(text) for text in texts])
    with progress_bar() as progress:
        loaded = TaskModel.load(model, threads=threads, progress=progress)
    with loaded:
        if source:
            _over_file(loaded, name, source, output, given)
            return
        if streams:
            for one in inputs:
                _stream(loaded, name, one, given)
            return
        results = loaded.run(name, inputs, given)
    _say_what_was_cut(results)
    if as_json:
        emit_json([{**_named(one), **result} for one, result in zip(inputs, results, strict=True)])
        return
    for one, result in zip(inputs, results, strict=True):
        _show(one, result)


def _over_file(model: Any, name: str, source: Path, output: Path, given: Mapping[str, Any]) -> None:
    from ..tasks import jsonl

    with progress_bar() as progress:
        kept = jsonl.run(source, output, lambda inputs: model.run(name, list(inputs), given), progress)
    note(f"{output}: {f'went on behind {kept:,} results of an earlier run' if kept else 'complete'}")


def _stream(model: Any, name: str, one: Any, given: Mapping[str, Any]) -> None:
    with model.stream(name, one, **given) as pieces:
        for piece in pieces:
            click.echo(piece, nl=False)
        click.echo()
        _say_what_was_cut([pieces.result])
        _say_where_it_ended(pieces.result)


def _say_where_it_ended(result: Mapping[str, Any]) -> None:
    if result["finish_reason"] == "length":
        note(f"cut at {result['tokens']} tokens; --max-new-tokens allows more")


def _check(texts: Sequence[str], source: Path | None, output: Path | None) -> None:
    if (source is None) != (output is None):
        raise BadRequest("--input and --output belong together", hint="name both, or give texts")
    if bool(texts) == bool(source):
        raise BadRequest("either texts or --input", hint="give the texts after the model's name")
    if list(texts).count(STDIN) > 1:
        raise BadRequest("standard input can be read once only")


def _one_text(fields: Sequence[str]) -> bool:
    """Whether an input is one text, so that several texts are several inputs."""
    return all(name.endswith("?") for name in fields[1:])


def _inputs(name: str, texts: Sequence[str]) -> list[Any]:
    from ..tasks.catalogue import TASKS

    fields = TASKS[name].fields
    if _one_text(fields):
        return list(texts)
    first, second = fields[0], fields[1].rstrip("*")
    if fields[1].endswith("*") and len(texts) > 1:
        return [{first: texts[0], second: list(texts[1:])}]
    if not fields[1].endswith("*") and len(texts) == 2:
        return [{first: texts[0], second: texts[1]}]
    raise BadRequest(f"{name} needs {first} and {second}, and {len(texts)} text(s) were given")


def _read(text: str) -> str:
    return sys.stdin.read().rstrip("\n") if text == STDIN else text


def _named(given: Any) -> dict[str, Any]:
    return {"text": given} if isinstance(given, str) else dict(given)


def _say_what_was_cut(results: Sequence[Mapping[str, Any]]) -> None:
    for index, result in enumerate(results):
        for part in (result, *result.get("results", ())):
            if part.get("truncated"):
                note(f"input {index}: {part['truncated']} tokens were cut")


def _show(given: Any, result: Mapping[str, Any]) -> None:
    """For people: vectors as JSON, everything else as a table."""
    vectors = result.get("embedding", result.get("features"))
    if vectors is not None:
        click.echo(json.dumps(vectors))
        return
    written = next((value for key, value in result.items() if key.endswith("_text")), None)
    if written is not None:
        click.echo(written)
        _say_where_it_ended(result)
        return
    click.echo(given if isinstance(given, str) else next(iter(given.values())))
    for rows in _tables(given, result):
        columns = [key for key in rows[0] if key not in UNSHOWN] if rows else []
        if columns:
            emit_table(columns, [[_cell(row[key]) for key in columns] for row in rows])


def _tables(given: Any, result: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    if "masks" in result:
        return [list(fillings) for fillings in result["masks"]]
    if "sequence" in result:
        pairs = zip(result["labels"], result["scores"], strict=True)
        return [[{"label": label, "score": score} for label, score in pairs]]
    if "scores" in result:
        pairs = zip(result["scores"], given["sentences"], strict=True)
        return [[{"score": score, "sentence": sentence} for score, sentence in pairs]]
    return [list(result[key]) for key in LISTS if key in result]


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
