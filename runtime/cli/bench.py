"""``ingle bench``: how fast a model is on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import BadRequest
from .. import machine
from ..options import LoadOptions
from .display import emit_fields, emit_json, human_seconds, human_size, progress_bar
from .options import load_options

if TYPE_CHECKING:
    from ..measure.speed import Figure, Speed


@click.command("bench", short_help="Say how fast a model is on this machine.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@load_options
def bench_command(model: str, as_json: bool, options: LoadOptions) -> None:
    """Measure MODEL on this machine for about a minute: reading a prompt, writing an answer, the first token, memory.

    It is loaded as `ingle serve` loads it, in the way that `ingle doctor MODEL` shows. Other work on the machine slows
    it down: medians are shown, and the range of what was measured.
    """
    if options.draft:
        raise BadRequest(
            "a draft model is not measured with random tokens, which nobody can foretell",
            hint=f"its own speed: ingle bench {options.draft}",
        )
    from ..measure.speed import measure_speed
    from ..store.build import obtain
    from ..store.store import Store

    with progress_bar() as progress:
        path = Path(obtain(model, Store(), progress=progress).path)
        speed = measure_speed(path, options, progress)
    if as_json:
        emit_json(_record(model, speed))
    else:
        emit_fields(_fields(model, speed))


def _fields(model: str, speed: Speed) -> dict[str, str]:
    info, foretold = speed.info, speed.info.footprint
    layout = "repacked" if info.repacked else "as in the file"
    memory = f"{human_size(speed.resident_bytes)} resident, " if speed.resident_bytes else ""
    return {
        "model": f"{model}, {human_size(info.size_bytes)}",
        "machine": f"{machine.cpu_name()}, {info.threads} threads",
        "way": f"weights {layout}, flash attention {info.flash_attention}",
        "context": f"{info.context_length:,} tokens ({info.context_reason})",
        "load": human_seconds(speed.load_s),
        "first token": f"{_range(speed.first_token, 1000)} ms (a prompt of {speed.first_token.tokens} tokens)",
        "prompt": f"{_range(speed.prompt)} tokens/s (of {speed.prompt.tokens} tokens)",
        "answer": f"{_range(speed.answer)} tokens/s",
        f"answer after {speed.depth:,}": f"{_range(speed.answer_deep)} tokens/s",
        "memory": f"{memory}{human_size(foretold.total) if foretold else '?'} at most",
    }


def _range(figure: Figure, times: float = 1) -> str:
    low, high = figure.low * times, figure.high * times
    return f"{figure.median * times:.1f}" + (f" ({low:.1f}-{high:.1f})" if figure.runs > 1 else "")


def _record(model: str, speed: Speed) -> dict[str, Any]:
    info = speed.info
    figures = {name: asdict(getattr(speed, name)) for name in ("first_token", "prompt", "answer", "answer_deep")}
    return {
        "model": model,
        "cpu": machine.cpu_name(),
        "threads": info.threads,
        "threads_prefill": info.threads_prefill,
        "repacked": info.repacked,
        "flash_attention": info.flash_attention,
        "context_length": info.context_length,
        "size_bytes": info.size_bytes,
        "load_s": speed.load_s,
        **figures,
        "depth": speed.depth,
        "resident_bytes": speed.resident_bytes,
        "footprint_bytes": info.footprint.total if info.footprint else None,
    }
