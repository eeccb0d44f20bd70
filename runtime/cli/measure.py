"""``ingle measure``: how well models predict a text, and what a quantization lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .display import emit_fields, emit_json, emit_table, human_size, note, progress_bar
from .options import THREADS

if TYPE_CHECKING:
    from ...convert.progress import Progress
    from ..measure.measurement import Measured, Measurement
    from ..measure.wish import Wish

ON = click.Path(path_type=Path)


@click.command("measure", short_help="Say how well models predict a text.")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--against", metavar="BASE", help="Compare each MODEL with this one, which was not quantized.")
@click.option("--on", type=ON, required=True, help="A text, or a .jsonl file of prompts or chats.")
@click.option("--ctx", type=click.IntRange(2), help="Tokens of a chunk [default: 512], or the most of a record.")
@click.option("--chunks", type=click.IntRange(1), help="Use only the first so many chunks or records.")
@click.option("--threads", type=THREADS, help="CPU threads. [default: physical cores]")
@click.option("--record", is_flag=True, help="Keep the figures beside each MODEL, for show, verify and push.")
@click.option("--plot", type=ON, help="Draw what each MODEL loses against its size (.png); needs --against.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def measure_command(
    models: tuple[str, ...],
    against: str | None,
    on: Path,
    ctx: int | None,
    chunks: int | None,
    threads: int | None,
    record: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure each MODEL on a text: perplexity, and with --against the distance from BASE.

    A text is read in chunks as llama-perplexity reads it, and the second half of each is scored; the figures are the
    same. Of a .jsonl file each line is a passage of its own: {"messages": [...]}, {"prompt": "..."} or
    {"text": "..."}. BASE and all models run side by side, so nothing large is kept; interrupted, the same command goes
    on where it was.
    """
    from ..measure.measurement import measure
    from ..measure.wish import Wish
    from ..plot import require_png

    if plot is not None:
        require_png(plot)
        if against is None:
            raise click.UsageError("--plot draws what was lost, and needs --against BASE")
    with progress_bar() as progress:
        paths = [_path(name, progress) for name in models]
        base = _path(against, progress) if against else None
        wish = Wish(on, ctx, chunks, threads)
        found = measure(paths, wish, against=base, progress=progress)
        if record:
            _keep(found, models, against, wish, progress)
    if plot is not None:
        _draw(found, plot)
    if as_json:
        emit_json(_record(found))
        return
    if len(found.models) == 1:
        emit_fields(_fields(found.models[0]))
    else:
        _print_table(found)
    note(_what_was_read(found))


def _path(name: str, progress: Progress) -> Path:
    from ..store.build import obtain
    from ..store.store import Store

    return obtain(name, Store(), progress=progress).path


def _keep(found: Measurement, models: Sequence[str], against: str | None, wish: Wish, progress: Progress) -> None:
    """Note the figures of each model beside it."""
    from .. import machine
    from ..store import figures
    from ..store.stages import now, version
    from ..store.store import Store, sha256

    store = Store()
    base = store.find(against) if against else None
    for name, measured in zip(models, found.models, strict=True):
        entry = store.find(name)
        record = asdict(measured)
        record["base"] = base and {"name": base.path.name, "sha256": base.sha256 or sha256(base.path, progress)}
        record["on"] = {"name": found.on.name, "sha256": found.sha256}
        record |= {key: getattr(found, key) for key in ("passages", "tokens", "predictions")}
        record |= {"length": wish.length, "most": wish.most}
        record |= {"machine": machine.describe(), "ingle": version(), "date": now()}
        del record["path"]
        figures.keep(figures.place(store, entry), entry.sha256 or sha256(entry.path, progress), record)


def _what_was_read(found: Measurement) -> str:
    left = f"; {found.left_over:,} tokens behind the last whole chunk took no part" if found.left_over else ""
    return (
        f"{found.predictions:,} of {found.tokens:,} tokens scored, in {found.passages:,} passages of {found.on}{left}"
    )


def _fields(model: Measured) -> dict[str, str]:
    lines = {
        "model": f"{model.path}",
        "size": f"{human_size(model.size_bytes)}, {model.bits_per_weight:.2f} bits per weight",
        "speed": f"{model.tokens_per_second:,.0f} tokens/s read" if model.tokens_per_second else "",
        "perplexity": f"{model.perplexity.value:.4f} ± {model.perplexity.error:.4f}",
    }
    if far := model.distance:
        lines |= {
            "base": f"{far.base_perplexity.value:.4f} ± {far.base_perplexity.error:.4f}",
            "ln ratio": f"{far.log_ratio.value:.5f} ± {far.log_ratio.error:.5f}",
            "KL divergence": f"{far.kld.value:.5f} ± {far.kld.error:.5f} in the mean",
            "": f"{far.kld_median:.5f} median, {far.kld_90:.5f} 90 %, {far.kld_99:.5f} 99 %, {far.kld_max:.5f} at most",
            "same top": f"{far.same_top.value:.3%} ± {far.same_top.error:.3%}",
            "RMS Δp": f"{far.rms_delta_p.value:.3%} ± {far.rms_delta_p.error:.3%}",
        }
    return {name: value for name, value in lines.items() if value}


def _draw(found: Measurement, path: Path) -> None:
    """Size and loss of each model, and the loss of each as a bar; what loses nothing has no place on a log scale."""
    from ..plot import Chart, Series, draw

    losses = {
        model.path.stem: (model.size_bytes / 1e6, model.distance.kld.value) for model in found.models if model.distance
    }
    points = {name: point for name, point in losses.items() if point[1] > 0}
    series = tuple(Series(name, (point,)) for name, point in points.items())
    chart = Chart("Loss by size", "MB", "mean KL divergence", series) if series else None
    draw(path, chart, {name: point[1] for name, point in losses.items()}, "Mean KL divergence, nats per token")


def _print_table(found: Measurement) -> None:
    header = ["MODEL", "SIZE", "BITS", "PERPLEXITY"]
    if found.base:
        header += ["KLD", "MEDIAN", "99 %", "SAME TOP", "RMS Δp"]
    emit_table(header, [_row(model) for model in found.models])


def _row(model: Measured) -> list[str]:
    row = [
        model.path.name,
        human_size(model.size_bytes),
        f"{model.bits_per_weight:.2f}",
        f"{model.perplexity.value:.4f} ± {model.perplexity.error:.4f}",
    ]
    if far := model.distance:
        row += [f"{far.kld.value:.5f} ± {far.kld.error:.5f}", f"{far.kld_median:.5f}", f"{far.kld_99:.5f}"]
        row += [f"{far.same_top.value:.2%}", f"{far.rms_delta_p.value:.2%}"]
    return row


def _record(found: Measurement) -> dict[str, Any]:
    record = asdict(found)
    models = [{**model, "path": str(model["path"])} for model in record["models"]]
    return {**record, "on": str(found.on), "base": str(found.base) if found.base else None, "models": models}
