"""What a request asks of the sampling: defaults and checks; and the log-probabilities of what was taken."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadRequest
from ...convert.gguf import Value
from ..llama.vocab import Vocab
from ..request import Request, Sampling, TokenLogprob
from .priority import rank

CUSTOMARY = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
"""llama.cpp's own defaults, for what neither the request nor the model says."""

MAX_LOGPROBS = 20
MAX_CHOICES = 128
SEED_SPACE = 2**32

_MODEL_DEFAULTS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
}


def model_defaults(metadata: Mapping[str, Value], chosen: Iterable[tuple[str, float]] = ()) -> Sampling:
    """The model's own sampling (its generation_config, kept in the file), completed with the customary values.
    ``chosen`` counts before both."""
    known: dict[str, Any] = {field: metadata[key] for field, key in _MODEL_DEFAULTS.items() if key in metadata}
    known |= dict(chosen)
    if "top_k" in known:
        known["top_k"] = int(known["top_k"])
    return dataclasses.replace(CUSTOMARY, **known)


def resolve(sampling: Sampling, defaults: Sampling, index: int) -> Sampling:
    """``sampling`` with nothing left open; choice ``index`` of a request gets its own seed."""
    names = ("temperature", "top_k", "top_p", "min_p")
    filled = {name: getattr(defaults, name) for name in names if getattr(sampling, name) is None}
    seed = random.SystemRandom().randrange(SEED_SPACE) if sampling.seed is None else sampling.seed + index
    return dataclasses.replace(sampling, **filled, seed=seed % SEED_SPACE)


def validate(request: Request, vocabulary: int) -> None:
    """Raise :class:`BadRequest` naming the field that is out of range."""
    for name, (check, rule) in _RULES.items():
        value = getattr(request.sampling, name)
        if value is not None and not (math.isfinite(value) and check(value)):
            raise BadRequest(f"{name} is {value}; it must be {rule}", param=name)
    for token, bias in request.sampling.logit_bias.items():
        if not 0 <= token < vocabulary or not (math.isfinite(bias) or bias == -math.inf):
            raise BadRequest(f"logit_bias has {token}: {bias}; ids go to {vocabulary - 1}", param="logit_bias")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise BadRequest(f"max_tokens is {request.max_tokens}; it must be at least 1", param="max_tokens")
    if not all(request.stop):
        raise BadRequest("a stop string is empty, and would end every answer before it begins", param="stop")
    if not 1 <= request.n <= MAX_CHOICES:
        raise BadRequest(f"n is {request.n}; it must be 1 to {MAX_CHOICES}", param="n")
    rank(request.priority)
    if request.logprobs is not None and not 0 <= request.logprobs <= MAX_LOGPROBS:
        raise BadRequest(f"logprobs is {request.logprobs}; it must be 0 to {MAX_LOGPROBS}", param="logprobs")


def token_logprob(logits: NDArray[np.float32], token: int, top: int, vocab: Vocab) -> TokenLogprob:
    """``ln p`` of a token and of the ``top`` likeliest, under the softmax of the raw logits."""
    highest = float(logits.max())
    normaliser = highest + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))

    def of(one: int) -> TokenLogprob:
        return TokenLogprob(one, vocab.piece(one, special=True), float(logits[one]) - normaliser)

    best = np.argpartition(logits, -top)[-top:] if top else np.empty(0, np.int64)
    ranked = best[np.argsort(-logits[best], kind="stable")]
    return dataclasses.replace(of(token), top=tuple(of(int(one)) for one in ranked))


_Rule = tuple[Callable[[float], bool], str]
_RULES: Mapping[str, _Rule] = {
    "temperature": (lambda v: v >= 0, "0 or more"),
    "top_k": (lambda v: v >= 0, "0 (off) or more"),
    "top_p": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "min_p": (lambda v: 0 <= v <= 1, "0 to 1"),
    "typical_p": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "repeat_penalty": (lambda v: v > 0, "above 0"),
    "repeat_last_n": (lambda v: v >= -1, "-1 (the whole window) or more"),
    "frequency_penalty": (lambda v: -2 <= v <= 2, "-2 to 2"),
    "presence_penalty": (lambda v: -2 <= v <= 2, "-2 to 2"),
    "dry_multiplier": (lambda v: v >= 0, "0 (off) or more"),
    "dry_base": (lambda v: v >= 1, "1 or more"),
    "dry_allowed_length": (lambda v: v >= 1, "1 or more"),
    "dry_penalty_last_n": (lambda v: v >= -1, "-1 (the whole window) or more"),
    "xtc_probability": (lambda v: 0 <= v <= 1, "0 to 1"),
    "xtc_threshold": (lambda v: 0 <= v <= 1, "0 to 1"),
    "mirostat": (lambda v: v in (0, 1, 2), "0, 1 or 2"),
    "mirostat_tau": (lambda v: v > 0, "above 0"),
    "mirostat_eta": (lambda v: v > 0, "above 0"),
}
