"""What commands show: a progress bar on stderr, tables and JSON on stdout, sizes and times for people."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import click

from ...convert.progress import Progress, silent

PATIENCE_S = 1.0
REDRAW_S = 0.1
BAR_WIDTH = 24
CLEAR_LINE = "\r\x1b[2K"
SIZE_UNITS = ("B", "kB", "MB", "GB", "TB")


class ProgressBar:
    """One line of a terminal, redrawn in place. It appears only when the work takes more than a second."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started = time.monotonic()
        self._stage, self._stage_since, self._stage_from = "", self._started, 0
        self._drawn_at = 0.0
        self._visible = False

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage or done < self._stage_from:
            self._stage, self._stage_since, self._stage_from = stage, now, done
        if now - self._started < PATIENCE_S or (now - self._drawn_at < REDRAW_S and done != total):
            return
        self._drawn_at = now
        self._visible = True
        left = seconds_left(now - self._stage_since, done - self._stage_from, total - done)
        self._out.write(CLEAR_LINE + progress_line(stage, done, total, shutil.get_terminal_size().columns, left))
        self._out.flush()

    def clear(self) -> None:
        if self._visible:
            self._out.write(CLEAR_LINE)
            self._out.flush()


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar while the block runs, gone when it ends; silent unless stderr is a terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    bar = ProgressBar(sys.stderr)
    try:
        yield bar
    finally:
        bar.clear()


def seconds_left(elapsed_s: float, done: int, left: int) -> float | None:
    """How long the rest will take at the speed so far; None before there is a speed worth the name."""
    return elapsed_s / done * left if elapsed_s >= PATIENCE_S and done > 0 and left > 0 else None


def progress_line(stage: str, done: int, total: int, columns: int, left_s: float | None = None) -> str:
    """``quantize  [######------] 52 %  8 s left`` cut to the terminal's width; without a total, what is done so far."""
    if total <= 0:
        return f"{stage}  {done:,}"[: columns - 1]
    share = min(done / total, 1.0)
    filled = round(share * BAR_WIDTH)
    rest = "" if left_s is None else f"  {human_wait(left_s)} left"
    return f"{stage}  [{'#' * filled}{'-' * (BAR_WIDTH - filled)}] {share:4.0%}{rest}"[: columns - 1]


def emit_json(value: Any) -> None:
    """One JSON document on stdout, characters as they are."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns on stdout."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def emit_fields(fields: Mapping[str, str]) -> None:
    """``name  value`` lines on stdout, values aligned."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {value}")


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr, so that stdout carries results only."""
    click.echo(click.style(text, dim=True), err=True, color=wants_colour())


def print_error(message: str, hint: str) -> None:
    """What went wrong, and what to do next, on stderr."""
    click.echo(click.style("error:", fg="red", bold=True) + f" {message}", err=True, color=wants_colour())
    if hint:
        click.echo(click.style("hint:", bold=True) + f" {hint}", err=True, color=wants_colour())


def wants_colour() -> bool | None:
    """``False`` under NO_COLOR; ``None`` leaves it to click, which colours terminals only."""
    return False if os.environ.get("NO_COLOR") else None


def human_size(num_bytes: int) -> str:
    """Bytes in decimal units, three digits: ``4.92 GB``."""
    size, power = float(num_bytes), 0
    while size >= 999.5 and power < len(SIZE_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.3g} {SIZE_UNITS[power]}"


def human_seconds(seconds: float) -> str:
    """``0.84 s``, ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s"


def human_wait(seconds: float) -> str:
    """``8 s``, ``2 min 05 s``, ``1 h 20 min``: of what is only guessed."""
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
