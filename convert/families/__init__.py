"""The model families that can be converted, one short file each: a module of this package with a ``FAMILY``."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..errors import UnsupportedModel
from .family import Family

_MODULES = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES if hasattr(module, "FAMILY"))
SUPPORTED = ", ".join(family.classes[0] for family in FAMILIES)


def find(config: Mapping[str, Any]) -> Family:
    """The family of a config.json: by the class it names first, or by ``model_type`` when it names none.

    Raises:
        UnsupportedModel: no family has that class or type.
    """
    classes = config.get("architectures")
    if not classes:
        types = {kind: family for family in FAMILIES for kind in family.model_types}
        return _lookup("model type", str(config.get("model_type")), types)
    name = str(classes[0] if isinstance(classes, list) else classes)
    return _lookup("architecture", name, {known: family for family in FAMILIES for known in family.classes})


def _lookup(what: str, name: str, table: Mapping[str, Family]) -> Family:
    family = table.get(name)
    if family is None:
        raise UnsupportedModel(f"{what} {name} cannot be converted", hint=f"these can: {SUPPORTED}")
    return family


__all__ = ["FAMILIES", "Family", "find"]
