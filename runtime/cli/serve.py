"""``ingle serve``: models behind an OpenAI-style API."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ...convert.errors import BadRequest
from ...convert.progress import Progress
from ..options import LoadOptions
from .config import OF_ONE_MODEL, Config, config_option, of
from .display import progress_bar
from .options import load_options

if TYPE_CHECKING:
    from ..server.catalog import Given
    from ..store.store import Store

log = logging.getLogger("ingle.server")

COMMANDLINE, ENVIRONMENT = ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT
MODELS_IN_MEMORY = 2
LEVELS = ("debug", "info", "warning", "error")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    from ..server.duration import seconds_of

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
    "--further-key",
    "further_keys",
    envvar="INGLE_FURTHER_KEYS",
    multiple=True,
    help="A key as good as --api-key, with a prefix cache of its own; may be given several times.",
)
@click.option("--share-cache", is_flag=True, help="Let clients with different keys share the prefix cache.")
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
@config_option
@load_options
def serve_command(
    models: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    further_keys: tuple[str, ...],
    share_cache: bool,
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

    MODELs are loaded before the server says that it is ready, with one line on stdout: its URL. It listens before that,
    and requests for them wait. Other installed models are loaded by the first request for them.
    """
    from ..server.listening import BACKLOG, ServeOptions, listen

    config = of(click.get_current_context())
    _log_to_stderr(log_level)
    _tell_of(config)
    options = replace(options, sampling=tuple(config.sampling.items()))
    models = tuple(config.aliases.get(name, name) for name in models)
    first = [*dict.fromkeys([*models, *(one.name for one in config.models if one.preload)])]
    most = max(MODELS_IN_MEMORY, len(first)) if max_models is None else max_models
    _refuse(models, len(first), most, options)
    if further_keys and not api_key:
        raise BadRequest("--further-key is one more key, and there is no --api-key")
    serving = ServeOptions(
        host,
        port,
        api_key or None,
        most,
        tuple(allowed_hosts),
        strict,
        drain_timeout_s,
        admin,
        keep_alive_s,
        tuple(further_keys),
        share_cache,
    )
    listener = listen(serving)
    from ..server.catalog import StoreCatalog, prepare, with_adapters
    from ..store.build import with_draft
    from ..store.store import Store

    store = Store()
    with progress_bar() as progress:
        known = _configured(config, models, options, store, progress)
        options = with_draft(options, store, progress)
        named = {one.text for one in known}
        given = prepare([text for text in models if text not in named], store, progress, options.mmproj)
    given = with_adapters([replace(one, options=options) for one in given], options.adapters)
    catalog = StoreCatalog(store, replace(options, draft=None), [*known, *given], config.aliases)
    listener.listen(BACKLOG)  # who comes now waits for the libraries that answer, which take half a second to import
    from ..server.serve import serve

    serve(listener, serving, catalog, first, lambda url: click.echo(url))


def _refuse(models: tuple[str, ...], num_first: int, most: int, options: LoadOptions) -> None:
    """Raise for options that contradict each other."""
    if num_first > most:
        raise BadRequest(f"--max-models {most} is less than the {num_first} models that are loaded first")
    if options.mmproj and len(models) != 1:
        raise click.UsageError("--mmproj belongs to one model: name that one, and no other")
    if options.draft and len(models) != 1:
        raise BadRequest("--draft needs one MODEL: a draft model has the vocabulary of the one it drafts for")
    if options.adapters and len(models) != 1:
        raise BadRequest("--lora needs one MODEL: an adapter belongs to the model that it was trained on")


def _configured(
    config: Config, models: tuple[str, ...], options: LoadOptions, store: Store, progress: Progress
) -> list[Given]:
    """The models of the configuration, loaded as they have it; what the command line says counts before that. Adapters
    and a projector on the command line are for the model that is named there."""
    from ..server.catalog import configured

    source = click.get_current_context().get_parameter_source
    said = {name for name in LoadOptions.__dataclass_fields__ if source(name) in (COMMANDLINE, ENVIRONMENT)}
    found = []
    for model in config.models:
        counts = said if model.name in models else said - set(OF_ONE_MODEL)
        rest = options if model.name in models else replace(options, adapters=(), mmproj=None, draft=None)
        own = {name: value for name, value in model.load.items() if name not in counts}
        sampling = tuple({**config.sampling, **model.sampling}.items())
        loaded = replace(rest, **own, sampling=sampling)
        found += configured(model.name, model.path, loaded, model.keep_alive_s, store, progress)
    return found


def _tell_of(config: Config) -> None:
    if config.path is None:
        return
    log.info("configured by %s", config.path)
    if {"api_key", "further_keys"} & set(config.server) and config.path.stat().st_mode & 0o077:
        log.warning("other users of this machine can read the API key in %s: chmod 600", config.path)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
