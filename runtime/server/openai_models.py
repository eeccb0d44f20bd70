"""``/v1/models``: OpenAI's list, with what we know of each model under ``ingle``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..request import ModelInfo
from .pool import Installed, Servable, State

SHOWN_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def listing(
    installed: Sequence[Installed],
    loaded: Mapping[str, Servable],
    expiry: Mapping[str, float] = MappingProxyType({}),
    states: Mapping[str, State] = MappingProxyType({}),
) -> dict[str, Any]:
    """``expiry``: Unix time at which an idle model is given up, for those that have one; by place, as ``states``."""
    data = [
        entry(model, loaded.get(model.place), expiry.get(model.place), states.get(model.place)) for model in installed
    ]
    return {"object": "list", "data": data}


def entry(
    installed: Installed, model: Servable | None, expires: float | None = None, state: State | None = None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"loaded": model is not None, "size_bytes": installed.size_bytes}
    facts["vision"] = bool(model.info.projector if model is not None else installed.mmproj)
    if installed.alias_of:
        facts["alias_of"] = installed.alias_of
    if installed.adapters:
        facts["adapters"] = list(installed.adapters)
    if model is not None:
        facts |= _facts(model.info) | ({"expires_at": round(expires)} if expires is not None else {})
        facts |= {"state": state} if state is not None else {}
    return {
        "id": installed.name,
        "object": "model",
        "created": installed.created,
        "owned_by": installed.name.split("/")[0] if "/" in installed.name else "ingle",
        "ingle": facts,
    }


def _facts(info: ModelInfo) -> dict[str, Any]:
    return {
        "architecture": info.architecture,
        "chat": bool(info.chat_templates),
        "parameters": info.parameters,
        "context_length": info.context_length,
        "context_trained": info.context_trained,
        "context_reason": info.context_reason,
        "kv_cells": info.kv_cells,
        "kv_bytes": info.kv_bytes,
        "flash_attention": info.flash_attention,
        "repacked": info.repacked,
        "parallel": info.parallel,
        "sampling": {name: value for name in SHOWN_SAMPLING if (value := getattr(info.sampling, name)) is not None},
        "threads": info.threads,
        "gpu_layers": info.gpu_layers,
        "warnings": list(info.warnings),
    }
