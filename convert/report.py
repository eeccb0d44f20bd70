"""What a look at a checkpoint found: one verdict per item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from .errors import IngleError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of ``ingle convert --check``. ``hint`` says what to do about a warning or failure."""

    name: str
    verdict: Verdict
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts on a checkpoint, in a fixed order. It can be converted when none of them is ``fail``."""

    items: tuple[Item, ...]

    @property
    def ok(self) -> bool:
        return all(item.verdict != "fail" for item in self.items)

    @property
    def failures(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.verdict == "fail")

    def __getitem__(self, name: str) -> Item:
        return next(item for item in self.items if item.name == name)


Source = TypeVar("Source")


def look(source: Source, aspects: Sequence[tuple[str, Callable[[Source], Iterable[Item]]]]) -> Report:
    """All aspects of a source; what one of them raises is an item that failed.

    What stands in the way of several is reported once, at the first.
    """
    items: list[Item] = []
    for name, aspect in aspects:
        try:
            items += aspect(source)
        except IngleError as error:
            if error.message not in {item.detail for item in items}:
                items.append(Item(name, "fail", error.message, error.hint))
    return Report(tuple(items))
