"""How much a request may say before its body. The connection itself limits what has not arrived as a whole."""

from __future__ import annotations

from starlette.types import Scope

from .errors import AddressTooLong, HeadersTooLarge

MOST_ADDRESS_BYTES = 8 * 1024
MOST_HEADER_BYTES = 16 * 1024
MOST_HEADERS = 100


def check_head(scope: Scope) -> None:
    """Raise :class:`AddressTooLong` or :class:`HeadersTooLarge`, or return."""
    address = len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b""))
    if address > MOST_ADDRESS_BYTES:
        raise AddressTooLong(f"the address has {address} bytes; {MOST_ADDRESS_BYTES} are the most")
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if size > MOST_HEADER_BYTES or len(headers) > MOST_HEADERS:
        raise HeadersTooLarge(
            f"there are {len(headers)} headers of {size} bytes; {MOST_HEADERS} of {MOST_HEADER_BYTES} are the most"
        )
