"""``ingle list``: the models that are here."""

from __future__ import annotations

import click

from .display import emit_json, emit_table, human_size, note
from .pull import as_record


@click.command("list", short_help="List the models that are here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List the models that are here, with type, size, origin and age."""
    from ..store.store import Store

    entries = Store().list()
    if as_json:
        emit_json([as_record(entry) for entry in entries])
    elif not entries:
        note("no models are here yet; fetch one with: ingle pull org/name")
    else:
        rows = [
            (entry.name, entry.type, human_size(entry.size_bytes), _origin(entry.built), entry.created[:10])
            for entry in entries
        ]
        emit_table(("NAME", "TYPE", "SIZE", "FILE", "SINCE"), rows)


def _origin(built: bool) -> str:
    return "built" if built else "in place"
