"""The conformance sweep: a tiny checkpoint per architecture, converted and run by llama.cpp, against transformers.

tests/sweep/ holds what transformers made of the same weights (tests/reference/make_sweep.py wrote it).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ingle.convert import convert, gguf
from sweeping import NAMES, load, older_config, relative_error, write_checkpoint

BOUND = 5e-3
# The key is redundant, and written where config.json has a head_dim.
REDUNDANT = ("attention.key_length", "attention.value_length")


@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    entry = load(name)
    done = convert(write_checkpoint(tmp_path / name, entry), tmp_path / "model.gguf", "f32")
    assert all(np.ptp(prompt["logits"]) > 1 for prompt in entry["prompts"]), "alike logits would prove nothing"
    assert relative_error(done.path, entry) <= BOUND


@pytest.mark.parametrize("name", NAMES)
def test_the_config_of_transformers_4_gives_the_same_file(name: str, tmp_path: Path) -> None:
    entry = load(name)
    write_checkpoint(tmp_path / "new" / name, entry)
    write_checkpoint(tmp_path / "old" / name, entry, older_config(entry))
    new, old = (
        gguf.read(convert(tmp_path / age / name, tmp_path / f"{age}.gguf", "f32").path) for age in ("new", "old")
    )
    keys = {key for key in {*new.metadata, *old.metadata} if not key.endswith(REDUNDANT)}
    assert {key: str(old.metadata.get(key)) for key in keys} == {key: str(new.metadata.get(key)) for key in keys}
    assert list(old.tensors) == list(new.tensors)
    assert all(np.array_equal(old.tensor(tensor), new.tensor(tensor)) for tensor in new.tensors)
