"""``ingle serve``: models behind an OpenAI-style API."""

from __future__ import annotations

import logging

import click

from ...convert.errors import BadRequest
from ..options import LoadOptions
from .display import progress_bar
from .options import load_options

MODELS_IN_MEMORY = 2
LEVELS = ("debug", "info", "warning", "error")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    from ..server.keeping import seconds_of

    try:
        return seconds_of(value) or 0.0
    except BadRequest as error:
        raise click.BadParameter(error.message) from error


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free port.")
@click.option(
    "--api-key",
    envvar="INGLE_API_KEY",
    help="Ask every client for this key. INGLE_API_KEY does the same and stays out of process lists.",
)
@click.option(
    "--max-models",
    type=click.IntRange(min=1),
    help=f"Models in memory at most; idle ones make room. [default: {MODELS_IN_MEMORY}, or as many as are named]",
)
@click.option("--allowed-host", "allowed_hosts", multiple=True, help="A further name that clients may call us by.")
@click.option("--strict", is_flag=True, help="Refuse requests with fields that are unknown.")
@click.option("--admin", is_flag=True, help="Let clients fetch and delete models (/api/pull, /api/delete).")
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that running requests get to finish when the server is told to end.",
)
@click.option(
    "--keep-alive",
    "keep_alive_s",
    default="-1",
    callback=_seconds,
    help="How long an idle model stays in memory: 10m, 1h30m, seconds. [default: until room is needed]",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What goes to stderr.")
@load_options
def serve_command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    max_models: int | None,
    allowed_hosts: tuple[str, ...],
    strict: bool,
    admin: bool,
    drain_timeout_s: float,
    keep_alive_s: float,
    log_level: str,
    options: LoadOptions,
) -> None:
    """Serve models through an OpenAI-style API, until SIGTERM or Ctrl-C.

    MODELs are loaded before the server says that it is ready, with one line on stdout: its URL. Other installed models
    are loaded by the first request for them.
    """
    from ..server.catalog import StoreCatalog, prepare, with_adapters
    from ..server.serve import ServeOptions, listen, serve
    from ..store.store import Store

    _log_to_stderr(log_level)
    most = max(MODELS_IN_MEMORY, len(models)) if max_models is None else max_models
    if len(models) > most:
        raise BadRequest(f"--max-models {most} is less than the {len(models)} models named")
    if options.mmproj and len(models) != 1:
        raise click.UsageError("--mmproj belongs to one model: name that one, and no other")
    if options.adapters and len(models) != 1:
        raise BadRequest("--lora needs one MODEL: an adapter belongs to the model that it was trained on")
    serving = ServeOptions(
        host, port, api_key or None, most, allowed_hosts, strict, drain_timeout_s, admin, keep_alive_s
    )
    listener = listen(serving)
    store = Store()
    with progress_bar() as progress:
        given = prepare(models, store, progress, options.mmproj)
    catalog = StoreCatalog(store, options, with_adapters(given, options.adapters))
    serve(listener, serving, catalog, [one.installed.name for one in given], lambda url: click.echo(url))


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
