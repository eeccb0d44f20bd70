"""``ingle unload``: have a running server give a model's memory back."""

from __future__ import annotations

import time

import click

from .display import note
from .remote import PATIENCE_S, Remote, server_options

POLL_S = 0.1
CLOSING_S = 10.0


@click.command()
@click.argument("model")
@server_options
def unload_command(model: str, url: str, api_key: str | None) -> None:
    """Have a running server give MODEL's memory back. What it is answering now is answered first."""
    server = Remote(url, api_key)
    before = _loaded(server)
    name = server.keep(model, 0, PATIENCE_S)
    if name not in before:
        note(f"{name} was not in memory")
        return
    deadline = time.monotonic() + CLOSING_S
    while name in _loaded(server):
        if time.monotonic() > deadline:
            note(f"{name} is at work, and goes when that is done")
            return
        time.sleep(POLL_S)
    note(f"{name} is out of memory")


def _loaded(server: Remote) -> set[str]:
    return {model["id"] for model in server.models() if model["ingle"]["loaded"]}
