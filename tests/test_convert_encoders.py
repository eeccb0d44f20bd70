"""Encoders, encoder-decoders and heads: what ``ingle`` computes from a converted file, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest
from ingle.convert import convert
from ingle.runtime.tasks.encoder import Encoder

# ggml's GELU is the tanh form, looked up in a table of f16, where most of these have the exact one.
BOUND = 5e-3
CLASSIFIER_BOUND = 1e-3
SEQ2SEQ = ("mt5", "t5", "t5_gated", "umt5")
READERS = [name for name in encoders.NAMES if name not in SEQ2SEQ]


@contextmanager
def loaded(name: str, folder: Path, dtype: str = "f32") -> Iterator[Encoder]:
    encoders.write(folder / "checkpoint", encoders.recipe(name))
    convert(folder / "checkpoint", folder / "m.gguf", dtype)
    with Encoder(folder / "m.gguf", threads=1) as encoder:
        yield encoder


def computed(encoder: Encoder, case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    states = encoder.states(case["ids"])
    if "states" in case:
        return states, np.array(case["states"])
    assert encoder.head is not None
    return encoder.head.run(states), np.array(case["logits"] if "logits" in case else case["embedding"])


@pytest.mark.parametrize("name", READERS)
def test_states_and_heads_are_those_of_transformers(name: str, tmp_path: Path, record_property: Any) -> None:
    with loaded(name, tmp_path) as encoder:
        pairs = [computed(encoder, case) for case in encoders.recipe(name)["golden"]]
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
    scale = max(float(np.abs(theirs).max()) for _, theirs in pairs)
    record_property("difference", difference)
    assert difference <= BOUND * scale
