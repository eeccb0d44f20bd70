"""The last-token logits of each family, through llama.cpp, against those of transformers (tests/golden/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingle.convert import convert
from ingle.runtime.llama.model import NativeModel
from sweeping import last_logits

TESTS = Path(__file__).parent
FAMILIES = sorted(path.name for path in (TESTS / "checkpoints").iterdir())
# ggml looks GELU up in a table of f16: without it (all other families) the difference is that of summation order.
GELU_BOUND, BOUND = 1e-3, 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_those_of_transformers(family: str, tmp_path: Path, record_property: Any) -> None:
    out = tmp_path / "model.gguf"
    convert(TESTS / "checkpoints" / family, out, "f32")
    model = NativeModel(out)
    prompts = json.loads((TESTS / "golden" / f"{family}.json").read_text())["prompts"]
    differences = [float(np.abs(last_logits(model, prompt) - prompt["logits"]).max()) for prompt in prompts]
    scale = max(float(np.ptp(prompt["logits"])) for prompt in prompts)
    model.close()
    record_property("max_abs_difference", max(differences))
    assert scale > 1, "logits that are all alike would prove nothing"
    assert max(differences) <= (GELU_BOUND if family.startswith(("gemma", "gpt2")) else BOUND)
