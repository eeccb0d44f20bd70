"""``ingle rm``: remove a model, and say what that frees."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from .display import emit_json, human_size, note


@click.command("rm", short_help="Remove a model.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--from-cache", is_flag=True, help="Also remove what was downloaded from the Hugging Face cache.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rm_command(names: tuple[str, ...], from_cache: bool, as_json: bool) -> None:
    """Remove each NAME; without a TYPE, all types of it.

    What ingle built is deleted. What was downloaded (a GGUF file that is used in place, or the checkpoint that the
    model was built from) stays in the Hugging Face cache unless --from-cache is given: other programs may use it too.
    Files and folders that you named by their path are never touched.
    """
    from ..store.store import Store

    removed = [Store().remove(name, from_cache=from_cache) for name in names]
    if as_json:
        emit_json([asdict(one) | {"left": [str(path) for path in one.left]} for one in removed])
        return
    for one in removed:
        click.echo(f"removed {', '.join(one.names) or 'an unfinished build'}; {human_size(one.freed_bytes)} freed")
        if one.left:
            size_bytes = sum(path.stat().st_size for path in one.left if path.exists())
            folder = os.path.commonpath([path.parent for path in one.left])
            note(f"{human_size(size_bytes)} stay in the Hugging Face cache: {folder} (--from-cache removes them too)")
