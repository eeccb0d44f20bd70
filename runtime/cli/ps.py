"""``ingle ps``: what a running server has loaded."""

from __future__ import annotations

import time
from typing import Any

import click

from .display import emit_json, emit_table, human_size, human_wait, note
from .remote import Remote, server_options


@click.command()
@server_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps_command(url: str, api_key: str | None, as_json: bool) -> None:
    """Show what a running server has loaded, what it does, and until when it is kept. A model that rests has given its
    cache back until the next request."""
    loaded = [model for model in Remote(url, api_key).models() if model["ingle"]["loaded"]]
    if as_json:
        emit_json(loaded)
        return
    emit_table(("NAME", "SIZE", "CONTEXT", "GPU LAYERS", "STATE", "KEPT"), [_row(model) for model in loaded])
    for model in loaded:
        for warning in model["ingle"]["warnings"]:
            note(f"{model['id']}: {warning}")


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    facts = model["ingle"]
    context = f"{facts['context_length']} of {facts['context_trained']}"
    return model["id"], human_size(facts["size_bytes"]), context, str(facts["gpu_layers"]), facts["state"], _kept(facts)


def _kept(facts: dict[str, Any]) -> str:
    if "expires_at" not in facts:
        return "until room is needed"
    return f"{human_wait(max(facts['expires_at'] - time.time(), 0))} more"
