"""Numbers out of a GGUF's metadata, whatever width they are stored with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
