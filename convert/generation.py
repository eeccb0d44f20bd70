"""How an encoder-decoder is meant to write: lengths, beams, penalties, and the prefix of each of its tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .gguf import Value

KEY = "ingle.generation"
SETTINGS = (
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "length_penalty", "early_stopping",
    "no_repeat_ngram_size", "repetition_penalty", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "do_sample", "temperature", "top_k", "top_p",
)  # fmt: skip
TASK_SETTINGS = (*SETTINGS, "prefix")


def metadata(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Value]:
    """generation_config.json, or what older saves have of it in config.json, and ``task_specific_params``; as JSON:
    ``{"default": {...}, "tasks": {name: {...}}}``."""
    default = _known(generation or config, SETTINGS)
    tasks = config.get("task_specific_params")
    named = {name: _known(given, TASK_SETTINGS) for name, given in tasks.items()} if isinstance(tasks, dict) else {}
    if not default and not named:
        return {}
    return {KEY: json.dumps({"default": default, "tasks": named}, ensure_ascii=False)}


def _known(given: Any, names: tuple[str, ...]) -> dict[str, Any]:
    settings = given if isinstance(given, dict) else {}
    return {name: settings[name] for name in names if settings.get(name) is not None}
