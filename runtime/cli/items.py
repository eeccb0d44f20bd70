"""Verdicts on a checkpoint or an adapter, as ``ingle convert`` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from .display import emit_json, emit_table, note

if TYPE_CHECKING:
    from ...convert import Item, Report


def print_report(report: Report, as_json: bool) -> None:
    """The verdict on each item."""
    if as_json:
        emit_json({"ok": report.ok, "items": [asdict(item) for item in report.items]})
        return
    emit_table(("ITEM", "VERDICT", "DETAIL"), [(item.name, item.verdict, item.detail) for item in report.items])
    note_items(report.items)


def note_items(items: Iterable[Item]) -> None:
    """What to do about warnings and failures, on stderr."""
    for item in items:
        if item.verdict != "ok":
            note(f"{item.verdict}: {item.name}: {item.detail}" + (f" ({item.hint})" if item.hint else ""))
