"""``ingle verify``: whether the bytes of models are still what they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...convert.errors import ChecksumMismatch, InputError
from ...convert.progress import Progress
from .display import emit_json, human_size, progress_bar

if TYPE_CHECKING:
    from ..store.store import Store


@click.command("verify", short_help="Check that a model's bytes are still what they were.")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--source", type=click.Path(path_type=Path), help="The checkpoint folder that one NAME was made of.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(names: tuple[str, ...], source: Path | None, as_json: bool) -> None:
    """Check the receipt of each NAME (by default of all models): a kept model, or a GGUF file.

    The SHA-256 of its files is computed again and compared with the one that was kept, or that `ingle measure --record`
    noted. Where its checkpoint is here, that is compared with the hashes in the file, too: another one is no fault of
    the model. With --source it is one, and tokens and chat templates of the file are compared with that checkpoint
    again. Exit code 5 says that a file differs; it is named.
    """
    from ..store.store import Store

    store = Store()
    if source is not None and len(names) != 1:
        raise click.UsageError("--source belongs to one NAME")
    with progress_bar() as progress:
        chosen = names or [entry.name for entry in store.list()]
        results = [
            _compared(store, name, source, progress) if source else _verify(store, name, progress) for name in chosen
        ]
    if as_json:
        emit_json(results)
    bad = [result for result in results if not result["ok"]]
    if not as_json:
        for result in results:
            click.echo(f"{'ok ' if result['ok'] else 'BAD'}  {result['name']}  {result['detail']}")
    if bad:
        raise ChecksumMismatch(
            f"{len(bad)} of {len(results)} models are not what they were: {', '.join(str(b['name']) for b in bad)}",
            hint="remove and pull them again: ingle rm NAME, ingle pull NAME",
        )


def _verify(store: Store, name: str, progress: Progress) -> dict[str, Any]:
    from ..store import receipt

    entry = store.find(name)
    try:
        found = receipt.check(entry, store, progress)
    except ChecksumMismatch as error:
        return {"name": name, "ok": False, "detail": error.message}
    detail = human_size(entry.size_bytes)
    if found.changed:
        detail += f"; its checkpoint is another one by now: {', '.join(found.changed)}"
    elif found.source_files:
        detail += f"; {found.source_files} files of its checkpoint are as recorded"
    return {"name": entry.name, "ok": True, "detail": detail, "changed": list(found.changed)}


def _compared(store: Store, name: str, source: Path, progress: Progress) -> dict[str, Any]:
    """Against a checkpoint: the hashes that the file has of it, and the proof of its texts."""
    from ...convert import gguf, origin
    from ..store import receipt
    from ..verify import prove

    entry = store.find(name)
    recorded = origin.files(gguf.read(entry.path).metadata)
    if not recorded:
        raise InputError(
            f"{name} does not say what it was made of", hint="files that ingle converted since version 0.1 do"
        )
    changed = receipt.different(source, recorded, progress)
    if changed:
        detail = f"{source} is not what it was made of: {', '.join(changed)}"
        return {"name": entry.name, "ok": False, "detail": detail, "changed": list(changed)}
    found = prove(source, entry.path, progress)
    equal = f"tokens of {found.strings:,} texts and {found.renderings} renderings are equal"
    detail = f"{len(recorded)} files of {source} are as recorded; {equal}"
    return {"name": entry.name, "ok": True, "detail": detail, "changed": []}
