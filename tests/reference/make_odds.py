"""Write tests/odds.json: how likely transformers makes each token before it draws one.

Needs torch and transformers, and is run by hand: ``python tests/reference/make_odds.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
    {"temperature": 0.7, "top_k": 0, "top_p": 1.0},
    {"temperature": 1.5, "top_k": 5, "top_p": 1.0},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.5},
    {"temperature": 1.3, "top_k": 12, "top_p": 0.9},
    {"temperature": 0.4, "top_k": 1, "top_p": 0.3},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.01},
    {"temperature": 2.0, "top_k": 500, "top_p": 0.97},
)
VOCABULARY = 40


def rows() -> list[list[float]]:
    draw = np.random.default_rng(3)
    plain = draw.normal(0, 3, VOCABULARY)
    tied = np.round(plain)
    forbidden = np.where(np.arange(VOCABULARY) % 3 == 0, -np.inf, plain)
    return [[float(value) for value in row.astype(np.float32)] for row in (plain, tied, forbidden)]


def odds(logits: list[float], settings: dict[str, Any]) -> list[float]:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(settings["temperature"])])
    if settings["top_k"]:
        warpers.append(TopKLogitsWarper(settings["top_k"]))
    if settings["top_p"] < 1:
        warpers.append(TopPLogitsWarper(settings["top_p"]))
    scores = warpers(torch.zeros((1, 1), dtype=torch.long), torch.tensor([logits]))
    return [round(value, 7) for value in torch.softmax(scores, -1)[0].tolist()]


if __name__ == "__main__":
    made = [
        {"logits": logits, "settings": settings, "odds": odds(logits, settings)}
        for logits in rows()
        for settings in SETTINGS
        if settings["top_p"] == 1 or len(set(logits)) > VOCABULARY // 2  # which of equals is cut is left open
    ]
    (Path(__file__).parent.parent / "odds.json").write_text(json.dumps(made) + "\n")
