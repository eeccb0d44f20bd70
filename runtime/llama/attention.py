"""Which models our attention (attention.cpp) can compute."""

from __future__ import annotations

from collections.abc import Mapping

from ...convert.gguf import Value
from .metadata import attention_heads, integer

PART, WIDEST = 16, 512  # of attention.cpp: what the width of a head is a multiple of, and at most

OTHERS = frozenset({"baichuan", "bloom", "deepseek2", "gemma2", "gpt-oss", "grok", "jais", "mpt", "refact"})
"""Architectures that cap their scores, add to them by distance, have sinks, or heads of two widths."""


def suits(metadata: Mapping[str, Value]) -> bool:
    """Whether it can compute the attention of a model."""
    architecture = metadata.get("general.architecture")
    heads = attention_heads(metadata)
    usual = integer(metadata, f"{architecture}.embedding_length", 0) // max(heads, 1)  # Mamba has none
    keys, values = (integer(metadata, f"{architecture}.attention.{kind}_length", usual) for kind in ("key", "value"))
    return architecture not in OTHERS and keys == values and keys % PART == 0 and 0 < keys <= WIDEST
