"""``ingle pull``: fetch a model and make it ready to run."""

from __future__ import annotations

from typing import Any

import click

from ..store.manifest import Entry, KeptFile
from .display import emit_json, human_size, note, progress_bar


@click.command("pull", short_help="Fetch a model and make it ready to run.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pull_command(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch each NAME from the hub, or build it from a checkpoint folder, and keep it.

    NAME is org/name, org/name:TYPE, org/name@revision, ./folder or ./folder:TYPE. A repository that holds GGUF files
    is used as it is, from the standard Hugging Face cache; Q4_K_M is taken when it is there and no TYPE is given.
    A checkpoint is converted, proven equal, and quantized to TYPE: by default Q4_K_M from a billion parameters on,
    Q8_0 below. Every byte is checked. Run again, it goes on where it was interrupted, or looks for a newer version.
    """
    entries = [_pull(name) for name in names]
    if as_json:
        emit_json([as_record(entry) for entry in entries])
        return
    for entry in entries:
        click.echo(f"{entry.name}  {human_size(entry.size_bytes)}  {how(entry)}")
        note(f"type {entry.type}: {entry.reason}" + ("; with its vision part" if entry.projector else ""))


def _pull(name: str) -> Entry:
    from ..store.build import obtain
    from ..store.store import Store

    with progress_bar() as progress:
        return obtain(name, Store(), progress=progress, update=True)


def how(entry: Entry) -> str:
    """Where a model's file comes from, in a few words."""
    if entry.source.kind == "file":
        return "a file of yours, used in place"
    return "converted and proven" if entry.built else "used in place, from the Hugging Face cache"


def as_record(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    return {
        "name": entry.name,
        "type": entry.type,
        "path": str(entry.path),
        "size_bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "files": [_file(file) for file in entry.files],
        "projector": entry.projector and _file(entry.projector),
        "source": {
            "kind": entry.source.kind,
            "location": entry.source.location,
            "version": entry.source.version,
        },
        "built": entry.built,
        "reason": entry.reason,
        "proof": entry.proof,
        "created": entry.created,
        "ingle": entry.ingle,
    }


def _file(file: KeptFile) -> dict[str, Any]:
    return {"path": str(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256}
