"""Who may talk to the server: the names it answers to, the pages that may call it, the key."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ...convert.errors import IngleError
from .errors import Forbidden, InvalidKey, response
from .head import check_head
from .listening import bracketed

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/health", "/"})
OPEN_PREFIX = "/page/"
"""What needs no key: whether the server is there, and the page, which asks for the key and holds nothing itself."""


@dataclass(frozen=True, slots=True)
class Rules:
    """hosts: names allowed in ``Host``, besides loopback and the address the connection came in on. further_keys: as
    good as ``api_key``. share_cache: whether clients with different keys find each other's prompts in the prefix cache.
    """

    hosts: frozenset[str] = frozenset()
    api_key: str | None = None
    further_keys: tuple[str, ...] = ()
    share_cache: bool = False

    def check(self, scope: Scope) -> None:
        """Raise :class:`Forbidden` or :class:`InvalidKey` unless the request may pass."""
        headers = Headers(scope=scope)
        self._check_host(headers, _address(scope))
        _check_origin(headers)
        if self.api_key is not None and not _is_open(scope["path"]):
            self._check_key(headers)

    def owner(self, scope: Scope) -> str:
        """Whose request it is, which may pass: what tells the holder of its key from others, and nothing of the key."""
        if self.api_key is not None and not self.share_cache:
            return hashlib.sha256(b"owner " + _given(Headers(scope=scope))).hexdigest()
        return ""

    def _check_host(self, headers: Headers, address: str) -> None:
        given = headers.getlist("host")
        host = hostname(given[0]) if len(given) == 1 else None
        if host is None or host not in LOOPBACK_NAMES | self.hosts | {address}:
            raise Forbidden(
                f"the Host {', '.join(given)[:100]!r} is not one that this server answers to",
                hint="start it with --allowed-host NAME to allow a name",
            )

    def _check_key(self, headers: Headers) -> None:
        given = _given(headers)
        keys = (self.api_key or "", *self.further_keys)
        if not sum(hmac.compare_digest(_digest(given), _digest(key.encode())) for key in keys):
            raise InvalidKey(
                "the API key is wrong" if given else "this server wants an API key",
                hint="send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
            )


def _given(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return (token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")).encode("latin-1")


class Gate:
    """ASGI middleware: answers by itself what :class:`Rules` refuse."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_head(scope)
            self.rules.check(scope)
        except IngleError as error:
            await response(error, scope["path"])(scope, receive, send)
        else:
            scope.setdefault("state", {})["owner"] = self.rules.owner(scope)
            await self.app(scope, receive, send)


def hostname(host: str) -> str | None:
    """The name in a ``Host`` header, lower case and without its port; None when it is malformed."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host.lower(), "0"
    return name if name and port.isdecimal() else None


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def _address(scope: Scope) -> str:
    """The local end of the connection: a page that was led here by a foreign name cannot have it as its Host."""
    server = scope.get("server")
    return bracketed(server[0]) if server else ""


def _check_origin(headers: Headers) -> None:
    """A browser says where the page that calls us came from; only our own pages may call."""
    origin = headers.get("origin")
    if (
        origin is not None
        and origin.lower().removeprefix("http://").removeprefix("https://") != headers["host"].lower()
    ):
        raise Forbidden(f"pages of {origin[:100]!r} may not call this server")
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise Forbidden("pages of another site may not call this server")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
