"""Responses that can be asked for again, and gone on from: the latest ones, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ...convert.errors import BadRequest

MOST_KEPT = 1000
MOST_KEPT_ITEMS = 100_000


class NoSuchResponse(BadRequest):
    code = "response_not_found"
    status = 404


@dataclass(frozen=True, slots=True)
class Kept:
    """A response, and the whole conversation before it."""

    items: list[dict[str, Any]]
    response: dict[str, Any]

    @property
    def conversation(self) -> list[dict[str, Any]]:
        return [*self.items, *self.response["output"]]


class ResponsesStore:
    """The latest responses by id; the oldest make room. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._num_items = 0

    def keep(self, items: list[dict[str, Any]], response: dict[str, Any]) -> None:
        with self._lock:
            self._kept[response["id"]] = Kept(items, response)
            self._num_items += len(items)
            while len(self._kept) > MOST_KEPT or self._num_items > MOST_KEPT_ITEMS:
                self._num_items -= len(self._kept.popitem(last=False)[1].items)

    def find(self, name: str, param: str | None = None) -> Kept:
        """Raise :class:`NoSuchResponse` if it is not here, or no longer."""
        with self._lock:
            if name in self._kept:
                return self._kept[name]
        raise NoSuchResponse(
            f"there is no response {name[:80]!r} here",
            hint=f"the latest {MOST_KEPT} are kept, in memory, and none with store=false",
            param=param,
        )

    def remove(self, name: str) -> None:
        kept = self.find(name)
        with self._lock:
            if self._kept.pop(name, None) is not None:
                self._num_items -= len(kept.items)
