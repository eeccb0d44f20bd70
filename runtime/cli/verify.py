"""``ingle verify``: whether the bytes of models are still what they were."""

from __future__ import annotations

from typing import Any

import click

from ...convert.errors import ChecksumMismatch
from ...convert.progress import Progress
from .display import emit_json, human_size, progress_bar


@click.command("verify", short_help="Check that a model's bytes are still what they were.")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(names: tuple[str, ...], as_json: bool) -> None:
    """Compute the SHA-256 of each NAME (by default of all models) again and compare it with the one that was kept.

    Exit code 5 says that a file differs; it is named.
    """
    from ..store.store import Store

    store = Store()
    with progress_bar() as progress:
        results = [_verify(store, name, progress) for name in names or [entry.name for entry in store.list()]]
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


def _verify(store: Any, name: str, progress: Progress) -> dict[str, Any]:
    try:
        entry = store.verify(name, progress)
    except ChecksumMismatch as error:
        return {"name": name, "ok": False, "detail": error.message}
    return {"name": entry.name, "ok": True, "detail": human_size(entry.size_bytes)}
