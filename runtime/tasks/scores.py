"""From logits to probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def softmax(logits: NDArray[Any]) -> Array:
    """Along the last axis."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def log_softmax(logits: NDArray[Any]) -> Array:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)


def sigmoid(logits: NDArray[Any]) -> Array:
    """Of each number; no overflow for large ones."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)
