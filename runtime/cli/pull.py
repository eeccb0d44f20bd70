"""``ingle pull``: fetch a model and make it ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..store import stages
from ..store.manifest import Entry, KeptFile
from .display import emit_json, human_size, note, progress_bar
from .importance import Importance


@click.command("pull", short_help="Fetch a model and make it ready to run.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-t", "--type", "type_name", help="Quantization type of every NAME that names none.")
@click.option("--imatrix", metavar="FILE|auto", help="Importance matrix; auto collects one on the text of --on.")
@click.option("--on", type=click.Path(path_type=Path), help="What --imatrix auto reads: a text, or .jsonl of prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def pull_command(
    names: tuple[str, ...], type_name: str | None, imatrix: str | None, on: Path | None, as_json: bool
) -> None:
    """Fetch each NAME from the hub, or build it from a checkpoint folder, and keep it.

    NAME is org/name, org/name:TYPE, org/name@revision, ./folder or ./folder:TYPE. A repository that holds GGUF files
    is used as it is, from the standard Hugging Face cache; Q4_K_M is taken when it is there and no TYPE is given.
    A checkpoint is converted, proven equal, and quantized to TYPE: by default Q4_K_M from a billion parameters on,
    Q8_0 below; with --imatrix the types that need one can be had, too. Every byte is checked. Run again, it goes on
    where it was interrupted, or looks for a newer version.
    """
    importance = Importance(imatrix, on, None).for_build()
    entries = [_pull(_typed(name, type_name), importance) for name in names]
    if as_json:
        emit_json([as_record(entry) for entry in entries])
        return
    for entry in entries:
        click.echo(f"{entry.name}  {human_size(entry.size_bytes)}  {how(entry)}")
        note(f"type {entry.type}: {entry.reason}" + ("; with its vision part" if entry.projector else ""))


def _typed(name: str, type_name: str | None) -> str:
    """The name with that type."""
    from ..store.names import FileName, parse

    wanted = parse(name)
    if type_name is None:
        return name
    if isinstance(wanted, FileName) or wanted.type:
        raise click.UsageError(f"{name} has a type of its own: leave -t out")
    return str(wanted.typed(type_name))


def _pull(name: str, importance: stages.Importance | None) -> Entry:
    from ..store.build import obtain
    from ..store.store import Store

    with progress_bar() as progress:
        return obtain(name, Store(), progress=progress, update=True, importance=importance)


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
