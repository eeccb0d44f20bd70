"""The model families that can be converted, one short file each: a module of this package with a ``FAMILY``."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from ..errors import UnsupportedModel
from ..heads import DECODER_HEADS
from .family import Family
from .refused import reason

_MODULES = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES if hasattr(module, "FAMILY"))
SUPPORTED = ", ".join(family.classes[0] for family in FAMILIES)


def find(config: Mapping[str, Any]) -> Family:
    """The family of a config.json: by the class it names first, or by ``model_type`` when it names none.

    Raises:
        UnsupportedModel: no family has that class or type.
    """
    name = class_name(config)
    if not name:
        kind = str(config.get("model_type"))
        types = {known: family for family in FAMILIES for known in family.model_types}
        return types.get(kind) or _refuse(f"model type {kind}", kind)
    table = {known: family for family in FAMILIES for known in family.classes}
    return table.get(name) or _headless(name, table) or _refuse(f"architecture {name}", name)


def class_name(config: Mapping[str, Any]) -> str:
    """The class that config.json names first, or nothing."""
    classes = config.get("architectures") or ""
    return str(classes[0] if isinstance(classes, list) else classes)


def _headless(name: str, table: Mapping[str, Family]) -> Family | None:
    """The family of a decoder that is saved without its language head: bare, or with another head."""
    for end in ("Model", *DECODER_HEADS):
        stem = name.removesuffix(end)
        family = table.get(f"{stem}ForCausalLM") or table.get(f"{stem}LMHeadModel")
        if stem != name and family is not None:
            return replace(family, head="")
    return None


def _refuse(what: str, name: str) -> Family:
    why = reason(name)
    raise UnsupportedModel(f"{what} cannot be converted{f': {why}' if why else ''}", hint=f"these can: {SUPPORTED}")


__all__ = ["FAMILIES", "Family", "class_name", "find"]
