"""The address of the server, and how it is run. It imports next to nothing, so that the address is there before the
libraries are that answer."""

from __future__ import annotations

import ipaddress
import math
import socket
from dataclasses import dataclass

from ...convert.errors import BadRequest, InputError

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - named in order to be told apart
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How the server is run. ``port`` 0 takes a free one; ``api_key`` None asks for none, on loopback only. ``admin``:
    clients may fetch and delete models. ``keep_alive_s``: how long an idle model stays in memory. ``further_keys`` are
    as good as ``api_key``; clients with different keys share nothing in the prefix cache unless ``share_cache``."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    max_models: int = 2
    allowed_hosts: tuple[str, ...] = ()
    strict: bool = False
    drain_timeout_s: float = 30.0
    admin: bool = False
    keep_alive_s: float = math.inf
    further_keys: tuple[str, ...] = ()
    share_cache: bool = False


def listen(options: ServeOptions) -> socket.socket:
    """A bound socket; it accepts nobody yet.

    Raises:
        BadRequest: without a key, only this machine may reach the server. InputError: the address cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InputError(f"there is no address {options.host}: {error.strerror}") from error
    if options.api_key is None and not is_loopback(str(address[0])):
        raise BadRequest(
            f"{options.host} can be reached by other machines, and there is no API key",
            hint="set INGLE_API_KEY (or --api-key), or serve on 127.0.0.1",
        )
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a program on this machine finds the server."""
    host, port = listener.getsockname()[:2]
    return f"http://{bracketed(WILDCARDS.get(host, host))}:{port}"


def bracketed(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
