"""Means, error bars and percentiles of the scores of many tokens.

Error bars are the standard error of the mean, taking tokens as independent: what llama-perplexity prints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scores import FIELDS

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.6g} ± {self.error:.2g}"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a model is from its base, over the same tokens.

    log_ratio: ln(perplexity / base's). kld, in nats: of the base's distribution from the model's. delta_p: what
    the model gives the right token more than the base does; rms_delta_p: its root mean square. same_top: share of
    tokens where both have the same likeliest one.
    """

    base_perplexity: Estimate
    log_ratio: Estimate
    kld: Estimate
    kld_median: float
    kld_90: float
    kld_99: float
    kld_999: float
    kld_max: float
    delta_p: Estimate
    rms_delta_p: Estimate
    same_top: Estimate


def perplexity(scores: NDArray[np.float32]) -> Estimate:
    """exp of the mean surprise. ``scores``: (tokens, fields), at least one token."""
    return _exp(_mean(_column(scores, "nll")))


def distance(scores: NDArray[np.float32]) -> Distance:
    """From scores that were taken against a base."""
    nll, base, kld, delta = (_column(scores, name) for name in ("nll", "nll_base", "kld", "delta_p"))
    median, ninety, high, higher = (float(value) for value in np.percentile(kld, (50, 90, 99, 99.9)))
    square = _mean(delta**2)
    root = math.sqrt(square.value)
    agreement = _column(scores, "same_top")
    return Distance(
        base_perplexity=_exp(_mean(base)),
        log_ratio=_mean(nll - base),
        kld=_mean(kld),
        kld_median=median,
        kld_90=ninety,
        kld_99=high,
        kld_999=higher,
        kld_max=float(kld.max()),
        delta_p=_mean(delta),
        rms_delta_p=Estimate(root, 0.5 / root * square.error if root else 0.0),
        same_top=_mean(agreement),
    )


def _column(scores: NDArray[np.float32], name: str) -> F64:
    return scores[:, FIELDS.index(name)].astype(np.float64)


def _mean(values: F64) -> Estimate:
    count = len(values)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(count - 1)) if count > 1 else 0.0)


def _exp(log: Estimate) -> Estimate:
    value = math.exp(log.value)
    return Estimate(value, value * log.error)
