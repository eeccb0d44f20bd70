"""The console command ``ingle``: finds a command, runs it, and prints what went wrong.

A command's module is imported when the command runs, so ``ingle --help`` costs no heavy import.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

from ...convert.errors import IngleError
from .display import print_error

DEBUG_VARIABLE = "INGLE_DEBUG"
INTERRUPTED_EXIT_CODE = 130
BROKEN_PIPE_EXIT_CODE = 141

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "run": "Ask a model once, or chat with it.",
        "serve": "Serve models through an OpenAI-style API.",
        "ps": "Show what a running server has loaded.",
        "load": "Have a running server load a model.",
        "unload": "Have a running server give a model's memory back.",
        "pull": "Fetch a model and make it ready to run.",
        "list": "List the models that are here.",
        "show": "Show what is known of a model.",
        "rm": "Remove a model.",
        "verify": "Check that a model's bytes are still what they were.",
        "push": "Upload models to the hub, with a card.",
        "convert": "Turn a Hugging Face checkpoint into a proven GGUF file.",
        "quantize": "Make a GGUF file smaller.",
        "task": "Classify, tag, answer, embed, rerank ...",
        "measure": "Say how well models predict a text.",
        "imatrix": "Find which weights of a model matter most.",
        "fit": "Say which quantization and context of a model fit this machine.",
        "bench": "Say how fast a model is on this machine.",
        "doctor": "Say what this machine offers, and how a model is computed on it.",
    }
)
"""Name and one-line help of each command. ``run`` is ``run_command`` in the module ``run``, and so on."""


class OutputClosedError(Exception):
    """Whoever read our stdout went away. Not an OSError, which click would turn into a plain exit 1."""


class LazyGroup(click.Group):
    """Lists commands from :data:`COMMANDS` and imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise OutputClosedError from error
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"ingle {_version()}")
        context.exit()


def _version() -> str:
    import importlib.metadata  # 50 ms that only --version needs

    try:
        return importlib.metadata.version("ingle")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."
)
def ingle() -> None:
    """Hugging Face checkpoint in; GGUF, quantized and proven equal, out; served on your own machine."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    Exit codes: 0 done, 1 a fault of ours, 2 wrong input, 3 verification failed, 4 hub, 5 disk, 6 engine,
    130 interrupted, 141 the reader of our output went away.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a narrow locale must not end an answer half-way
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        exit_code = ingle.main(args=arguments, prog_name="ingle", standalone_mode=False)
    except OutputClosedError:
        _discard_output()
        return BROKEN_PIPE_EXIT_CODE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED_EXIT_CODE
    except Exception as error:  # the one place where everything that went wrong is printed
        return _report(error)
    return exit_code if isinstance(exit_code, int) else 0  # click returns the code of --help and ctx.exit(code)


def _report(error: Exception) -> int:
    """Print ``error`` on stderr and return its exit code."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, IngleError):
        print_error(error.message, error.hint)
        return error.exit_code
    print_error(
        f"{type(error).__name__}: {error}", f"this is a fault of ingle; {DEBUG_VARIABLE}=1 shows where it happened"
    )
    return 1


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's last flush finds no broken pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
