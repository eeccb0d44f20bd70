"""How long it takes to choose a token from the logits of a vocabulary of 152,000, as large ones are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np

from .finding import Finding

VOCABULARY = 152_000
TOKENS = 200
SPREAD = 4.0  # of the logits: a few hundred tokens have nine tenths of the probability

KINDS: Mapping[str, tuple[Mapping[str, float], float]] = {
    "greedy": ({"temperature": 0.0}, 30),
    "top-k 40, top-p, min-p": ({"top_k": 40, "top_p": 0.95, "min_p": 0.05}, 150),
    "top-k 40 and penalties": ({"top_k": 40, "repeat_penalty": 1.1, "frequency_penalty": 0.2}, 150),
    "top-p alone": ({"top_p": 0.95}, 400),
    "min-p alone": ({"min_p": 0.05}, 150),
    "temperature alone": ({}, 400),
}
"""What is asked beside a temperature of 0.8, and the bound in microseconds."""


def findings(model: Path) -> list[Finding]:
    from ingle.runtime.llama.vocab import Vocab

    with Vocab.open(model) as vocab:
        return [
            Finding(f"choosing a token of {VOCABULARY:,}: {kind}", took(asked, vocab), bound, "µs")
            for kind, (asked, bound) in KINDS.items()
        ]


def took(asked: Mapping[str, float], vocab: object) -> float:
    """Microseconds, in the median."""
    from ingle.runtime.engine.drawing import TokenSource
    from ingle.runtime.request import Sampling

    everything = Sampling(temperature=0.8, top_k=0, top_p=1.0, min_p=0.0, seed=0)
    fields = {name: getattr(everything, name) for name in Sampling.__dataclass_fields__} | dict(asked)
    source = TokenSource(Sampling(**fields), vocab, 4096, ())  # type: ignore[arg-type]
    random, seconds = np.random.default_rng(0), []
    base = random.normal(0, SPREAD, VOCABULARY)
    for _ in range(TOKENS):
        logits = (base + random.normal(0, 0.5, VOCABULARY)).astype(np.float32)
        began = time.perf_counter()
        source.next(logits)
        seconds.append(time.perf_counter() - began)
    source.close()
    return median(seconds) * 1e6
