"""What ``ingle convert`` does with an adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...convert.errors import BadCheckpoint
from ...convert.progress import Progress
from .display import emit_json, human_size, progress_bar
from .items import note_items, print_report

if TYPE_CHECKING:
    from ...convert.adapter import AdapterConversion


def find_adapter(text: str, base: str | None, progress: Progress) -> Path | None:
    """The adapter folder that ``text`` names; None where it names a whole model.

    Raises:
        BadCheckpoint: a base was given, and it is no adapter.
    """
    from ..store.adapter import adapter_folder

    folder = adapter_folder(text, progress)
    if base is not None and folder is None:
        raise BadCheckpoint(f"{text} is no adapter: it has no adapter_config.json", hint="a model needs no --base")
    return folder


def convert_adapter(folder: Path, base: str | None, out: Path, dtype: str, *, check: bool, as_json: bool) -> bool:
    """Convert an adapter, or with ``check`` only look at it; returns whether it can be converted."""
    from ...convert import adapter
    from ..store.adapter import base_of
    from ..verify_adapter import prove_loads

    with progress_bar() as progress, base_of(folder, base, progress) as place:
        if check:
            report = adapter.check_adapter(folder, place, dtype.lower())
        else:
            done = adapter.convert_adapter(folder, place, out, dtype.lower(), prove=prove_loads, progress=progress)
    if check:
        print_report(report, as_json)
        return report.ok
    if as_json:
        emit_json({**asdict(done), "path": str(done.path)})
    else:
        note_items(done.warnings)
        click.echo(_summary(done))
    return True


def _summary(done: AdapterConversion) -> str:
    from ...convert.adapter import proven

    return (
        f"{done.path}  {human_size(done.size_bytes)}, {done.dtype}, for {done.base}; {proven(done.merge, done.loaded)}"
    )
