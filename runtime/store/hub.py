"""The one door to the hub and to ``huggingface_hub``: its HTTP session (proxies, certificates) and its token.

Of the client we use no more than that: it checks sizes only and does not resume, and we need both done right. Every
request goes through :meth:`Hub._get`, which follows redirects itself: never from https to http, and with the token
only where the endpoint is.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ...convert.errors import HubError
from . import places
from .cache import MAIN
from .fetch import Body, Interrupted, Patience
from .names import HubName
from .repository import RemoteFile, Repository, from_reply

TIMEOUT_S = 30.0
QUESTION_ATTEMPTS = 3
MOST_REDIRECTS = 5
MOST_REPLY_BYTES = 64 << 20
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 429, 500, 502, 503, 504)
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub at ``endpoint`` (no slash at its end). ``token`` may be None: public models need none."""

    endpoint: str
    token: str | None = None
    first_wait_s: float = 0.5

    @classmethod
    def from_environment(cls) -> Hub:
        """``HF_ENDPOINT``, and the token of ``HF_TOKEN`` or of ``hf auth login``."""
        from huggingface_hub import get_token

        return cls(places.hub_endpoint(), get_token())

    def patience(self) -> Patience:
        return Patience(first_wait_s=self.first_wait_s)

    def repository(self, name: HubName) -> Repository:
        """Ask what a repository holds.

        Raises:
            HubError: there is no such repository or revision, it may not be read, or the hub cannot be reached.
        """
        revision = quote(name.revision or MAIN, safe="")
        url = f"{self.endpoint}/api/models/{name.repository}/revision/{revision}?blobs=true"
        patience = Patience(QUESTION_ATTEMPTS, self.first_wait_s)  # nothing is lost yet: a person waits for the answer
        while True:
            try:
                return from_reply(name.repository, self._json(url, str(name)))
            except Interrupted as error:
                patience.bear(error)

    @contextlib.contextmanager
    def body(self, repository: Repository, file: RemoteFile, offset: int, stop: int | None = None) -> Iterator[Body]:
        """The bytes of a file from ``offset`` on, to its end or to ``stop`` (not included), if the hub heeds that.

        Raises:
            Interrupted: a failure that may pass, also while the bytes are read. HubError: one that will not.
        """
        url = f"{self.endpoint}/{repository.id}/resolve/{repository.commit}/{quote(file.name)}"
        with self._get(url, f"{repository.id}: {file.name}", _wish(offset, stop)) as response:
            yield Body(_start(response, offset), _chunks(response, url))

    def _json(self, url: str, what: str) -> Any:
        reply = bytearray()
        with self._get(url, what, {}) as response:
            for chunk in _chunks(response, url):
                reply += chunk
                if len(reply) > MOST_REPLY_BYTES:
                    raise HubError(f"the hub's description of {what} is longer than {MOST_REPLY_BYTES:,} bytes")
        try:
            return json.loads(reply)
        except (ValueError, RecursionError) as error:
            raise HubError(f"the hub's description of {what} is no JSON: {error}") from error

    @contextlib.contextmanager
    def _get(self, url: str, what: str, headers: Mapping[str, str]) -> Iterator[Any]:
        from huggingface_hub import get_session

        for _ in range(MOST_REDIRECTS + 1):
            _split(url)  # refuses what is no address
            with (
                _connection_errors(url),
                get_session().stream(
                    "GET", url, headers={**self._headers(url), **headers}, follow_redirects=False, timeout=TIMEOUT_S
                ) as response,
            ):
                if response.status_code not in REDIRECTS:
                    self._check(response, what)
                    yield response
                    return
                url = _redirected(url, response.headers.get("location", ""))
        raise HubError(f"more than {MOST_REDIRECTS} redirects for {what}, the last to {_origin(url)}")

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"User-Agent": "ingle", "Accept-Encoding": "identity"}
        if self.token and _origin(url) == _origin(self.endpoint):
            headers["Authorization"] = f"Bearer {self.token}"
        return headers

    def _check(self, response: Any, what: str) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status in PASSING or status == 416:
            error = Interrupted(f"the hub answered {status} for {what}", hint="try again in a while")
            error.retry_after_s = _retry_after_s(response.headers.get("retry-after", ""))
            raise error
        raise HubError(f"the hub answered {status} for {what}: {self._reason(response)}", hint=self._advice(status))

    def _reason(self, response: Any) -> str:
        given = response.headers.get("x-error-message") or response.headers.get("x-error-code")
        return str(given)[:200] if given else "no reason given"

    def _advice(self, status: int) -> str:
        if status not in (401, 403, 404):
            return "check HF_ENDPOINT and the name"
        if self.token:
            return "check the name; if it is right, your token does not give access to it (licence not accepted?)"
        return "check the name; if it is right, the model is private or gated: set HF_TOKEN, or run: hf auth login"


@contextlib.contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    """Turn the HTTP library's failures into ours. (Which library that is depends on the hub client's version.)"""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE forbids asking the hub", hint="unset it") from error
    except HTTPError as error:
        raise Interrupted(
            f"no connection to {_origin(url)}: {error or type(error).__name__}",
            hint="check the network; models that are here work without it, and HF_HUB_OFFLINE=1 uses the cache only",
        ) from error


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    with _connection_errors(url):
        yield from response.iter_bytes()  # as they arrive: a larger chunk would be lost with the connection


def _wish(offset: int, stop: int | None) -> dict[str, str]:
    if not offset and stop is None:
        return {}
    return {"Range": f"bytes={offset}-{'' if stop is None else stop - 1}"}


def _start(response: Any, offset: int) -> int:
    """Where the body starts: a server without ranges answers 200 and starts at 0."""
    if response.status_code == 200:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if not match or int(match[1]) != offset:
        given = response.headers.get("content-range")
        raise HubError(f"the hub answered a request from byte {offset:,} with the range {given!r}")
    return offset


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise HubError(f"the hub redirects to {location[:200]!r}, which is no address") from error
    before, after = _split(url), _split(target)
    if not location or (before.scheme, after.scheme) == ("https", "http"):
        raise HubError(f"the hub redirects from {_origin(url)} to {location[:200]!r}, which is refused")
    return target


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(_HOST.fullmatch(parts.hostname or "")) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or not url.isascii():
        raise HubError(f"{url[:200]!r} is not an address of a hub", hint="check HF_ENDPOINT")
    return parts


def _origin(url: str) -> str:
    parts = _split(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _retry_after_s(header: str) -> float:
    return float(header) if header.isdecimal() else 0.0
