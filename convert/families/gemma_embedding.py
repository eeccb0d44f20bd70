"""EmbeddingGemma: Gemma 3 that attends in both directions and predicts no tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..report import Item
from . import gemma3
from .family import unsupported


def limits(config: Config) -> Iterator[Item]:
    both_ways = {**config.values, "use_bidirectional_attention": False}
    yield from gemma3.limits(replace(config, values=both_ways))
    if config.get("use_bidirectional_attention") not in (True, "all"):
        yield unsupported("use_bidirectional_attention", False)


FAMILY = replace(
    gemma3.FAMILY,
    arch="gemma-embedding",
    classes=("Gemma3TextModel",),
    model_types=(),
    limits=limits,
    head="",
)
