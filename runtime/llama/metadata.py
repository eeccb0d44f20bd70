"""Numbers out of a GGUF's metadata, whatever width they are stored with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...convert import ggml
from ...convert.gguf import Value


def integer(metadata: Mapping[str, Value], key: str, default: int) -> int:
    """The integer at ``key``; ``default`` where there is none."""
    value = metadata.get(key)
    return int(value) if isinstance(value, int | np.integer) else default


def integers(metadata: Mapping[str, Value], key: str) -> list[int]:
    """The array of integers at ``key``; a single one counts as an array of one, a missing one as empty."""
    value = metadata.get(key)
    if isinstance(value, np.ndarray):
        return [int(number) for number in value]
    return [int(value)] if isinstance(value, int | np.integer) else []


def attention_heads(metadata: Mapping[str, Value]) -> int:
    """Query heads of the layer that has most of them."""
    return max(integers(metadata, f"{metadata.get('general.architecture', '')}.attention.head_count") or [1])


def kv_bytes_per_cell(metadata: Mapping[str, Value], kv_type: str) -> int:
    """Bytes of keys and values that one token occupies over all layers of an attention model."""
    arch = metadata.get("general.architecture", "")
    layers = integer(metadata, f"{arch}.block_count", 0)
    heads = integers(metadata, f"{arch}.attention.head_count") or [1]
    heads_kv = integers(metadata, f"{arch}.attention.head_count_kv") or heads
    if len(heads_kv) == 1:
        heads_kv = heads_kv * layers
    head_size = integer(metadata, f"{arch}.embedding_length", 0) // max(1, heads[0])
    key = integer(metadata, f"{arch}.attention.key_length", head_size)
    value = integer(metadata, f"{arch}.attention.value_length", head_size)
    element = ggml.named(kv_type)
    return sum(heads_kv) * (key + value) * element.block_bytes // element.block
