"""``ingle load``: have a running server load a model before anybody asks for it."""

from __future__ import annotations

import time

import click

from .display import human_seconds, note
from .remote import Remote, server_options

PATIENCE_S = 3600.0


@click.command()
@click.argument("model")
@click.option(
    "--keep-alive", help="How long it stays when idle: 10m, 1h30m, seconds, -1 for good. [default: as served]"
)
@server_options
def load_command(model: str, keep_alive: str | None, url: str, api_key: str | None) -> None:
    """Have a running server load MODEL now, not at its first request."""
    began = time.monotonic()
    name = Remote(url, api_key).keep(model, keep_alive, PATIENCE_S)
    note(f"{name} is in memory after {human_seconds(time.monotonic() - began)}")
