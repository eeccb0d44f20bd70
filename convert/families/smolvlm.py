"""SmolVLM and Idefics 3, the language model: a Llama under another name. The vision part is a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..report import Item
from . import llama
from .family import VISION_DROPPED


def limits(config: Config) -> Iterator[Item]:
    kind = (config.get("text_config") or {}).get("model_type")
    if kind not in ("llama", None):
        yield Item("config", "fail", f"the language model is of type {kind!r}, where a llama is expected")


FAMILY = replace(
    llama.FAMILY,
    classes=("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"),
    model_types=("smolvlm", "idefics3"),
    spellings={r"^model\.text_model\.": "model."},
    dropped=VISION_DROPPED,
    limits=limits,
)
