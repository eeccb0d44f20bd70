"""``ingle fit``: which quantization of a model fits this machine, with which context."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..options import LoadOptions
from .display import emit_json, emit_table, human_size, note, progress_bar
from .options import load_options

if TYPE_CHECKING:
    from ..fit import Report, Row, Window


@click.command("fit", short_help="Say which quantization and context of a model fit this machine.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all parts of each sum.")
@load_options
def fit_command(model: str, as_json: bool, options: LoadOptions) -> None:
    """Say which quantization of MODEL fits this machine, and with which context length.

    MODEL is a GGUF file or a model that is here (org/name:TYPE), which is looked at as it is; or a checkpoint folder or
    a hub id, of which only configs and headers are fetched, in every type that it could be quantized to.
    """
    from ..fit import fit

    with progress_bar() as progress:
        report = fit(model, options, progress)
    if as_json:
        emit_json(_record(report))
        return
    contexts = [window.context for window in report.rows[0].windows]
    header = ("TYPE", "FILE", *(f"{context:,}" for context in contexts), "DEFAULT", "VERDICT")
    emit_table(header, [_cells(row) for row in report.rows])
    note(
        f"memory: {human_size(report.available_bytes)} available, of which a model may take "
        f"{human_size(report.usable_bytes)}; the columns are context lengths, DEFAULT is taken when none is asked for"
    )
    if any(row.needs_imatrix for row in report.rows):
        note("*: needs an importance matrix: ingle quantize --imatrix auto --on TEXT")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.type + ("*" if row.needs_imatrix else ""),
        human_size(row.file_bytes),
        *(_memory(window) for window in row.windows),
        f"{row.chosen:,}" if row.chosen else "-",
        _verdict(row),
    )


def _memory(window: Window) -> str:
    return ("" if window.fits else "no: ") + human_size(window.footprint.total)


def _verdict(row: Row) -> str:
    if row.verdict == "smaller context":
        return f"up to {row.largest:,} tokens" if row.largest else "too large"
    return {"fits": "fits", "from disk": "only from disk, slowly"}.get(row.verdict, row.verdict)


def _record(report: Report) -> dict[str, object]:
    rows = [
        {
            **asdict(row),
            "windows": [{**asdict(window), "total_bytes": window.footprint.total} for window in row.windows],
        }
        for row in report.rows
    ]
    return {**asdict(report), "rows": rows}
