"""A running server, as the commands ``ps``, ``load`` and ``unload`` talk to it."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from ...convert.errors import InputError

PATIENCE_S = 10.0
DEFAULT_URL = "http://127.0.0.1:8080"

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(command: Command) -> Command:
    """``--url`` and ``--api-key``, as ``url`` and ``api_key``."""
    for option in (
        click.option("--api-key", envvar="INGLE_API_KEY", help="The server's key, if it has one."),
        click.option("--url", default=DEFAULT_URL, show_default=True, help="The server."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Remote:
    """The server at ``url``."""

    url: str
    api_key: str | None = None

    def models(self) -> list[dict[str, Any]]:
        """All that it could load, with what it says of each under ``ingle``.

        Raises:
            InputError: no such server there, or it refuses.
        """
        try:
            models: list[dict[str, Any]] = self._ask("/v1/models")["data"]
        except (KeyError, TypeError) as error:
            raise self._foreign() from error
        return [model for model in models if "ingle" in model]

    def keep(self, name: str, keep_alive: str | int | None, patience_s: float) -> str:
        """Load a model, or give it up at ``keep_alive`` 0; waits for a load. Returns the model's full name.

        Raises:
            InputError: no such server or model there, or the model does not load.
        """
        body = {"model": name, "stream": False} | ({} if keep_alive is None else {"keep_alive": keep_alive})
        try:
            return str(self._ask("/api/generate", body, patience_s)["model"])
        except (KeyError, TypeError) as error:
            raise self._foreign() from error

    def _ask(self, path: str, body: Mapping[str, Any] | None = None, patience_s: float = PATIENCE_S) -> Any:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{self.url} is not the URL of a server", hint=f"it looks like {DEFAULT_URL}")
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key.encode().decode('latin-1')}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url.rstrip('/')}{path}", data, headers)  # noqa: S310 - checked above
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=patience_s) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise InputError(f"{self.url}: {_reason(error)}", hint=_hint(error.code)) from error
        except TimeoutError as error:
            raise InputError(f"{self.url} did not answer within {patience_s:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"no server answers at {self.url}: {error}", hint="start one with: ingle serve") from error
        except ValueError as error:
            raise self._foreign() from error

    def _foreign(self) -> InputError:
        return InputError(f"what answers at {self.url} is no ingle server")


def _reason(error: urllib.error.HTTPError) -> str:
    """The server's own words, in OpenAI's or in Ollama's shape."""
    try:
        said = json.load(error)["error"]
        return str(said["message"] if isinstance(said, dict) else said)
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return f"it answered {error.code} {error.reason}"


def _hint(status: int) -> str:
    return "set INGLE_API_KEY, or use --api-key" if status == 401 else ""
