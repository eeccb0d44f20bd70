"""The vision parts that can be converted, one short file each: a module of this package with a ``FAMILY``.

A vision part becomes a file of its own, a projector in llama.cpp's words, which turns pictures into rows that the
language model reads like embeddings of tokens. It is described by the same :class:`..families.family.Family` as a
language model: the architecture is ``clip``, and its config is ``vision_config`` with two keys more, ``model`` (all of
config.json) and ``processor`` (how pictures are prepared).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..families import Family, class_name

_MODULES = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
FAMILIES: tuple[Family, ...] = tuple(module.FAMILY for module in _MODULES if hasattr(module, "FAMILY"))


def find(config: Mapping[str, Any]) -> Family | None:
    """The vision part of a config.json, by the class it names first; None for a model of language alone."""
    name = class_name(config)
    return next((family for family in FAMILIES if name in family.classes), None) if has_vision(config) else None


def has_vision(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes a vision part at all."""
    return isinstance(config.get("vision_config"), dict)


__all__ = ["FAMILIES", "find", "has_vision"]
