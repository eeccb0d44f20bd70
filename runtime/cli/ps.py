"""``ingle ps``: what a running server has loaded."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import click

from ...convert.errors import InputError
from .display import emit_json, emit_table, human_size, note

PATIENCE_S = 10.0


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="The server.")
@click.option("--api-key", envvar="INGLE_API_KEY", help="The server's key, if it has one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ps_command(url: str, api_key: str | None, as_json: bool) -> None:
    """Show what a running server has loaded."""
    loaded = [model for model in _models(url, api_key) if model["ingle"]["loaded"]]
    if as_json:
        emit_json(loaded)
        return
    emit_table(("NAME", "SIZE", "CONTEXT", "GPU LAYERS"), [_row(model) for model in loaded])
    for model in loaded:
        for warning in model["ingle"]["warnings"]:
            note(f"{model['id']}: {warning}")


def _row(model: dict[str, Any]) -> tuple[str, str, str, str]:
    facts = model["ingle"]
    context = f"{facts['context_length']} of {facts['context_trained']}"
    return model["id"], human_size(facts["size_bytes"]), context, str(facts["gpu_layers"])


def _models(url: str, api_key: str | None) -> list[dict[str, Any]]:
    """The server's list of models.

    Raises:
        InputError: no such server there, or it refuses.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url} is not the URL of a server", hint="it looks like http://127.0.0.1:8080")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/models", headers=headers)  # noqa: S310 - checked above
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=PATIENCE_S) as response:
            models: list[dict[str, Any]] = json.load(response)["data"]
    except urllib.error.HTTPError as error:
        raise InputError(f"{url} answered {error.code} {error.reason}", hint=_hint(error.code)) from error
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"no server answers at {url}: {error}", hint="start one with: ingle serve") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"what answers at {url} is no ingle server") from error
    return [model for model in models if "ingle" in model]


def _hint(status: int) -> str:
    return "set INGLE_API_KEY, or use --api-key" if status == 401 else ""
