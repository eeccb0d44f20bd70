"""Durations as people and clients write them. It imports next to nothing: the command line reads them, too."""

from __future__ import annotations

import math
import re
from typing import Any

from ...convert.errors import BadRequest

UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
PIECE = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


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
