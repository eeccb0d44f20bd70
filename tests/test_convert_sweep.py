"""The conformance sweep: tiny checkpoints of every architecture, converted and run by llama.cpp, against transformers.

tests/sweep/, tests/encoders/ and tests/golden/ hold what transformers made of the same weights; ``make_sweep.py``,
``make_encoders.py`` and ``make_checkpoints.py`` of tests/reference/ wrote them. What is claimed for each class is the
table of docs/models.md, and ``write_models.py`` writes that.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import models_page
import numpy as np
import pytest
import sweeping
from conformance import CASES, by_class
from ingle.convert import convert, families, gguf
from ingle.convert.errors import UnsupportedModel
from ingle.convert.families.refused import REASONS

TESTS = Path(__file__).parent
BOUND = 5e-3
# The key is redundant, and written where config.json has a head_dim.
REDUNDANT = ("attention.key_length", "attention.value_length")
CLAIMED = models_page.claimed()


@pytest.mark.parametrize("name", CASES)
def test_what_llama_cpp_computes_is_what_transformers_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = convert(case.write(tmp_path / "checkpoint", case.config), tmp_path / "model.gguf", "f32").path
    assert case.error(path) <= CLAIMED[case.class_name] <= BOUND


@pytest.mark.parametrize("name", CASES)
def test_the_config_of_transformers_4_gives_the_same_file(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    new, old = (
        gguf.read(convert(case.write(tmp_path / age, config), tmp_path / f"{age}.gguf", "f32").path)
        for age, config in (("new", case.config), ("old", case.older_config()))
    )
    keys = {key for key in {*new.metadata, *old.metadata} if not key.endswith(REDUNDANT)}
    assert {key: str(old.metadata.get(key)) for key in keys} == {key: str(new.metadata.get(key)) for key in keys}
    assert list(old.tensors) == list(new.tensors)
    assert all(np.array_equal(old.tensor(tensor), new.tensor(tensor)) for tensor in new.tensors)


@pytest.mark.parametrize("stored", [True, False])
def test_where_two_configs_contradict_each_other_the_stored_head_decides(stored: bool, tmp_path: Path) -> None:
    """transformers 5 goes by the outer config, 4 went by the inner one."""
    entry = sweeping.load("mistral3_vision")
    outer, inner = entry["config"], entry["config"]["text_config"]
    assert (outer["tie_word_embeddings"], inner["tie_word_embeddings"]) == (True, False)
    if stored:
        entry["tensors"]["lm_head.weight"] = [384, 32]
    folder = sweeping.write_checkpoint(tmp_path / "checkpoint", entry)
    assert ("output.weight" in gguf.read(convert(folder, tmp_path / "m.gguf", "f32").path).tensors) == stored


def test_the_table_of_models_is_current() -> None:
    assert models_page.page(CLAIMED) == models_page.PAGE.read_text()


def test_the_sweep_is_as_wide_as_it_is_said_to_be() -> None:
    assert len(by_class()) >= 110
    assert {family.arch for family in families.FAMILIES} == {case.arch for case in CASES.values()}


@pytest.mark.parametrize("stem", REASONS)
def test_an_architecture_that_is_refused_gets_the_reason(stem: str) -> None:
    for name in (f"{stem}ForCausalLM", f"{stem}Model"):
        with pytest.raises(UnsupportedModel) as refusal:
            families.find({"architectures": [name]})
        assert REASONS[stem] in refusal.value.message


def test_the_sweep_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import conformance"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TESTS)
