"""Option groups that several commands share: how a model is loaded, how tokens are chosen.

@click.command()
@load_options
@sampling_options
def run_command(options: LoadOptions, sampling: Sampling) -> None: ...
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from ..options import AdapterFile, LoadOptions
from ..request import Sampling
from .promise import Asked

Command = TypeVar("Command", bound=Callable[..., Any])

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
POSITIVE = click.IntRange(min=1)
THREADS = click.IntRange(1, 512)  # as many as llama.cpp can use
SEQUENCES = click.IntRange(1, 128)  # as many as the engine serves: sizing.MAX_PARALLEL
NO_OPTIONS = {"sampling"}  # of LoadOptions: commands that sample have an option for each of them
UNIT = click.FloatRange(0, 1)
ANY_SIZE = click.FloatRange(min=0)


def _biases(_context: click.Context, _parameter: click.Parameter, values: Iterable[str]) -> dict[int, float]:
    """``("42=-100",)`` → ``{42: -100.0}``."""
    biases = {}
    for value in values:
        token, _, bias = value.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not TOKEN_ID=BIAS, for instance 42=-100") from error
    return biases


def _adapters(_context: click.Context, _parameter: click.Parameter, values: Iterable[str]) -> tuple[AdapterFile, ...]:
    """``("a.gguf=0.5",)`` → one adapter at half its strength."""
    return tuple(map(_adapter, values))


def _adapter(text: str) -> AdapterFile:
    path, _, scale = text.rpartition("=")
    try:
        number = float(scale)
    except ValueError:
        return AdapterFile(text)
    if not path or not math.isfinite(number):
        raise click.BadParameter(f"{text!r} is not FILE=SCALE, for instance adapter.gguf=0.5")
    return AdapterFile(path, number)


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``512M``, ``4GB``, ``1.5GiB`` or a plain number → bytes; K, M, G and T are powers of 1,000, Ki to Ti of 1,024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", str(value).strip().upper())
        if found is None or (found[3] and not found[2]):
            self.fail(f"{value!r} is not a size such as 512M, 4G or 1.5GiB", param, context)
        return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " "))


def _option(name: str, kind: Any, text: str, *aliases: str, **settings: Any) -> Callable[[Command], Command]:
    flag = "--" + name.replace("_", "-")
    settings.setdefault("show_default", settings.get("default") is not None)
    return click.option(flag, *aliases, name, type=kind, help=text, **settings)


def _defaults(kind: type[Any]) -> Mapping[str, Any]:
    instance = kind()
    return {field.name: getattr(instance, field.name) for field in fields(kind)}


_LOAD = _defaults(LoadOptions)
_SAMPLING = _defaults(Sampling)


def _load(name: str, kind: Any, text: str, *aliases: str) -> Callable[[Command], Command]:
    return _option(name, kind, text, *aliases, default=_LOAD[name])


def _sample(name: str, kind: Any, text: str, *aliases: str) -> Callable[[Command], Command]:
    return _option(name, kind, text, *aliases, default=_SAMPLING[name])


_LOAD_OPTIONS: Sequence[Callable[[Any], Any]] = (
    _option(
        "context_length", POSITIVE, "Tokens of prompt and answer together. [default: from model and memory]", "--ctx"
    ),
    _option("kv_cells", POSITIVE, "Tokens that all requests and the prefix cache hold. [default: from --ctx]"),
    _load("parallel", SEQUENCES, "Requests that decode at the same time."),
    _load("max_queue", click.IntRange(min=0), "Requests that may wait; one more is refused."),
    _load("prefill_chunk", POSITIVE, "Most prompt tokens read in one step."),
    _load(
        "itl_target_s",
        click.FloatRange(0, 3600),
        "Seconds that a stream may wait for a token, twice that while 192 rows of a prompt need it; 0 is off.",
        "--itl-target",
    ),
    _option("threads", THREADS, "CPU threads of a decode step. [default: physical cores]"),
    _option("threads_prefill", THREADS, "CPU threads while a prompt is read. [default: physical cores]"),
    _load("gpu_layers", click.IntRange(min=-1), "Layers to offload to a GPU; -1 is all."),
    click.option(
        "--lora",
        "adapters",
        metavar="FILE[=SCALE]",
        multiple=True,
        callback=_adapters,
        help="A LoRA adapter as GGUF (`ingle convert` makes them); may be given several times. `run` adds all of them "
        "to the model; `serve` lists each as MODEL:NAME beside MODEL without any.",
    ),
    _load("kv_type", click.Choice(KV_TYPES), "Element type of the KV cache."),
    _load(
        "flash_attention", click.Choice(("auto", "on", "off")), "Flash attention: on suits many streams; auto measures."
    ),
    _load("repack", click.Choice(("auto", "on", "off")), "Lay weights out anew for the CPU; auto measures."),
    _load(
        "speculate",
        click.Choice(("auto", "off")),
        "Compute several tokens at once where an answer repeats what was said; auto does so where it pays.",
    ),
    _load(
        "rest_after_s",
        click.FloatRange(0, 2**31),
        "Seconds without a request after which the cache is given back until the next one; 0 keeps it.",
        "--rest-after",
    ),
    _option(
        "draft",
        str,
        "A small model of the same vocabulary, which foretells tokens where the answer repeats nothing; asked only "
        "where that pays.",
        metavar="MODEL",
    ),
    _option(
        "mmproj",
        click.Path(exists=True, dir_okay=False),
        "Projector file of a vision model. [default: the one that the model came with]",
        metavar="FILE",
    ),
    click.option(
        "--mmap/--no-mmap", default=_LOAD["mmap"], show_default=True, help="Map the file, or read it into memory."
    ),
    click.option(
        "--prefix-cache/--no-prefix-cache",
        default=_LOAD["prefix_cache"],
        show_default=True,
        help="Reuse what an earlier prompt has in common with a new one.",
    ),
    _option(
        "cache_ram_bytes",
        Size(),
        "Memory for finished conversations. [default: 2 GiB, or an eighth of what is free]",
        "--cache-ram",
    ),
    _option(
        "cache_disk_bytes",
        Size(),
        "Disk for finished conversations, which outlive the process; 0 keeps none.",
        "--cache-disk",
        default=_LOAD["cache_disk_bytes"],
    ),
)

_SAMPLING_OPTIONS: Sequence[Callable[[Any], Any]] = (
    _option("temperature", ANY_SIZE, "0 always takes the likeliest token. [default: the model's own]", "--temp"),
    _option("top_k", click.IntRange(min=0), "Keep the k likeliest tokens; 0 is off. [default: the model's own]"),
    _option("top_p", UNIT, "Keep the likeliest tokens that sum to p. [default: the model's own]"),
    _option("min_p", UNIT, "Drop tokens below p times the likeliest. [default: the model's own]"),
    _sample("typical_p", UNIT, "Locally typical sampling; 1 is off."),
    _sample("repeat_penalty", ANY_SIZE, "Divide the logits of recent tokens; 1 is off."),
    _sample("repeat_last_n", click.IntRange(min=-1), "Tokens that the penalties look back on; -1 is all."),
    _sample("frequency_penalty", float, "Subtracted for each occurrence of a token."),
    _sample("presence_penalty", float, "Subtracted once for a token that occurred."),
    _sample("dry_multiplier", ANY_SIZE, "Strength of DRY, against repeated phrases; 0 is off."),
    _sample("dry_base", ANY_SIZE, "Growth of the DRY penalty."),
    _sample("dry_allowed_length", click.IntRange(min=0), "Length of repetition that DRY allows."),
    _sample("dry_penalty_last_n", click.IntRange(min=-1), "Tokens that DRY looks back on; -1 is all."),
    click.option(
        "--dry-sequence-breaker",
        "dry_sequence_breakers",
        multiple=True,
        default=_SAMPLING["dry_sequence_breakers"],
        help="Text that ends a repetition for DRY; may be given several times.",
    ),
    _sample("xtc_probability", UNIT, "Chance of XTC to drop the likeliest tokens; 0 is off."),
    _sample("xtc_threshold", UNIT, "Probability above which XTC may drop a token."),
    click.option(
        "--mirostat",
        type=click.Choice(("0", "1", "2")),
        default=str(_SAMPLING["mirostat"]),
        callback=lambda _context, _parameter, value: int(value),
        show_default=True,
        help="Mirostat version; 0 is off.",
    ),
    _sample("mirostat_tau", ANY_SIZE, "Surprise that mirostat aims at."),
    _sample("mirostat_eta", ANY_SIZE, "Learning rate of mirostat."),
    click.option(
        "--logit-bias",
        metavar="ID=BIAS",
        multiple=True,
        callback=_biases,
        help="Add BIAS to the logit of token ID; may be given several times.",
    ),
    _option("seed", click.IntRange(min=0), "Makes draws repeatable. [default: random]"),
)


def _collect(kind: type[Any], parameter: str, options: Iterable[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    """A decorator: the values of ``options`` reach the command as one ``kind``, named ``parameter``."""
    names = [field.name for field in fields(kind) if field.name not in NO_OPTIONS]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def collected(*args: Any, **values: Any) -> Any:
            group = kind(**{name: values.pop(name) for name in names})
            return command(*args, **{parameter: group}, **values)

        decorated: Any = collected
        for option in reversed(tuple(options)):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


_PROMISE_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--max-size", metavar="SIZE", help="Choose types for a file of at most so much: 3.2GB, 900MiB."),
    _option("bpw", click.FloatRange(0, min_open=True), "Choose types for at most so many bits per weight, whole file."),
    _option("max_kld", ANY_SIZE, "Choose types for a KL divergence of at most so much, in nats per token."),
    click.option(
        "--for", "machine", type=click.Choice(("this-machine",)), help="Choose types for the memory that is free now."
    ),
    _option(
        "ctx", POSITIVE, "With --for: tokens of context that must fit, too. [default: 8192, or what it was trained for]"
    ),
    click.option(
        "--goal",
        type=click.Choice(("quality", "cpu-fast")),
        default="quality",
        show_default=True,
        help="What is wanted most within the promise.",
    ),
    click.option("--plot", type=click.Path(path_type=Path), help="Draw what other sizes would lose (.png)."),
)

promise_options = _collect(Asked, "asked", _PROMISE_OPTIONS)
load_options = _collect(LoadOptions, "options", _LOAD_OPTIONS)
sampling_options = _collect(Sampling, "sampling", _SAMPLING_OPTIONS)
