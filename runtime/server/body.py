"""The JSON of a request, read under limits: size, time, depth, and nothing that JSON itself does not allow."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable
from typing import Any

from fastapi import Request

from ...convert.errors import BadRequest
from .errors import BodyTooLarge, TooSlow

MOST_BYTES = 16 * 1024 * 1024
MOST_DEPTH = 64
MOST_DIGITS = 20
DEADLINE_S = 60.0
SMALL_BYTES = 64 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


async def read_json(request: Request) -> dict[str, Any]:
    """The body as an object.

    Raises:
        BadRequest: it is not an object in strict JSON. BodyTooLarge, TooSlow: it is over a limit.
    """
    data = await _read(request)
    if len(data) <= SMALL_BYTES:
        return parse(data)
    return await asyncio.to_thread(parse, data)


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise BadRequest("a body with both a Content-Length and a Transfer-Encoding can be read in two ways")
    if declared.isdecimal() and int(declared) > MOST_BYTES:
        raise _too_large()
    data = bytearray()
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MOST_BYTES:
                    raise _too_large()
    except TimeoutError as error:
        raise TooSlow(f"the body did not arrive within {DEADLINE_S:.0f} s") from error
    return bytes(data)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {MOST_BYTES // 2**20} MiB")


def parse(data: bytes) -> dict[str, Any]:
    """Strict JSON: UTF-8, no NaN or Infinity, no duplicate keys, no lone surrogates, an object at the top."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _too_deep() from error
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    _inspect(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadRequest(f"the key {twice[:60]!r} appears twice in one object", param=twice[:60])
    return value


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise BadRequest(f"a number of {len(digits)} digits is out of range")
    return int(digits)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadRequest(f"the number {text[:40]} is out of range")
    return number


def _constant(name: str) -> float:
    raise BadRequest(f"{name} is not JSON")


def _inspect(value: Any) -> None:
    """Depth and surrogates, level by level (no recursion)."""
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        for key in value:
            _whole(key)
        return value.values()
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        _whole(value)
    return ()


def _whole(text: str) -> None:
    if _SURROGATE.search(text):
        raise BadRequest("the body holds half a surrogate pair, which is no character")


def _too_deep() -> BadRequest:
    return BadRequest(f"the body is nested more than {MOST_DEPTH} levels deep")
