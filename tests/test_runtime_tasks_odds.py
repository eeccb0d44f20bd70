"""Drawing tokens: how likely each is, against transformers (tests/reference/make_odds.py), and that draws follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingle.runtime.tasks.odds import Odds

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "odds.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_as_likely_as_in_transformers(case: dict[str, Any]) -> None:
    kept, odds = Odds(**case["settings"]).of(np.array(case["logits"], np.float32))
    found = np.zeros(len(case["logits"]))
    found[kept] = odds
    assert found == pytest.approx(case["odds"], abs=1e-6)


def test_draws_are_as_frequent_as_they_are_likely() -> None:
    case = CASES[4]
    odds, random = Odds(**case["settings"]), np.random.default_rng(0)
    logits = np.array(case["logits"], np.float32)
    drawn = np.bincount([odds.draw(logits, random) for _ in range(4000)], minlength=len(logits)) / 4000
    assert drawn == pytest.approx(case["odds"], abs=0.03)
    assert (drawn[np.array(case["odds"]) == 0] == 0).all()
