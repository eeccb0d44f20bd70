"""Hugging Face checkpoint in, GGUF out. Knows formats and architectures; needs numpy and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapter import AdapterConversion, check_adapter, convert_adapter
    from .inspection import check
    from .pipeline import Conversion, convert
    from .report import Item, Report

__all__ = [
    "AdapterConversion", "Conversion", "Item", "Report", "check", "check_adapter", "convert", "convert_adapter",
]  # fmt: skip

_HOMES = {
    "AdapterConversion": "adapter",
    "check_adapter": "adapter",
    "convert_adapter": "adapter",
    "check": "inspection",
    "Conversion": "pipeline",
    "convert": "pipeline",
    "Item": "report",
    "Report": "report",
}


def __getattr__(name: str) -> object:
    """Import numpy only when something that needs it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
