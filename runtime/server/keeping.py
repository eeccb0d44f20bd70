"""How long a model stays in memory after its last request, as clients say it: in the body, or in a header."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator
from starlette.requests import Request

from .duration import seconds_of
from .posted import Posted

HEADER = "X-Ingle-Keep-Alive"


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
