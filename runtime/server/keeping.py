"""How long a model stays in memory after its last request, as clients say it: in the body, or in a header."""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import field_validator
from starlette.requests import Request

from ...convert.errors import BadRequest
from .posted import Posted

HEADER = "X-Ingle-Keep-Alive"
UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
PIECE = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


class Kept(Posted):
    """The body of a request that a model answers; it may say how long that model is kept."""

    keep_alive: Any = None

    @field_validator("keep_alive")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        seconds_of(value)
        return value

    @property
    def keep_alive_s(self) -> float | None:
        """Seconds that the model is to stay in memory after this; None for as it is."""
        return seconds_of(self.keep_alive)


def of_header(request: Request) -> float | None:
    """What the header says, for clients that cannot add a field; the body's word comes first.

    Raises:
        BadRequest: it is no duration.
    """
    return seconds_of(request.headers.get(HEADER), HEADER)


def seconds_of(value: Any, param: str = "keep_alive") -> float | None:
    """``"5m"``, ``"1h30m"`` or seconds; None for None, infinity for anything negative.

    Raises:
        BadRequest: it is no duration; ``param`` is blamed.
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.inf if value < 0 else float(value)
    if isinstance(value, str) and DURATION.fullmatch(value):
        total = sum(float(number) * UNITS_S[unit] for number, unit in PIECE.findall(value))
        return math.inf if value.startswith("-") else total
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
        return seconds_of(int(value))
    raise BadRequest(f"{param} is a duration like '5m' or seconds (got {value!r:.60})", param=param)
