"""What each type of each weight costs in KL divergence: the kernels' error, times how sensitive the model is to it.

Errors of independent roundings hardly interfere, so their KL divergences add up; and each grows with the square of the
error, which is what :meth:`Shards.error` measures (Malinovskii et al., 2024, "Pushing the Limits of Large Language
Model Quantization via the Linearity Theorem"). One trial per weight, or per group of weights, gives its factor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...convert.errors import InputError
from ...convert.files import appearing
from ...convert.ggml import TYPES, GGMLType
from ...convert.progress import Progress
from ...quantize.shards import Shards
from .trials import Trials

CANDIDATES = tuple(
    TYPES[name]
    for name in (
        "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0",
        "Q4_K", "Q4_1", "Q5_0", "Q5_K", "Q5_1", "Q6_K", "Q8_0",
    )
)  # fmt: skip
"""Types that a weight may get, where they fit its width and its importance is known."""

FINE = ("Q8_0",)
COARSE = ("Q3_K", "IQ4_NL", "Q4_0")
"""The first that fits is what a weight has while others are tried, and what it is tried with. All are quick to make."""

LEAST_SHARE = 0.02
"""Of the median sensitivity per weight: what a trial cannot tell from nothing is not nothing."""

LAYER = re.compile(r"^blk\.(\d+)\.(.+)$")


@dataclass(frozen=True, slots=True)
class Losses:
    """errors: by weight, then type. factors: KL divergence by error, of each weight."""

    errors: Mapping[str, Mapping[GGMLType, float]]
    factors: Mapping[str, float]

    def of(self, name: str, element: GGMLType) -> float:
        return self.factors[name] * self.errors[name][element]

    def total(self, mix: Mapping[str, GGMLType]) -> float:
        return sum(self.of(name, element) for name, element in mix.items())


def fine(shards: Shards) -> dict[str, GGMLType]:
    """The mixture that loses least of those made of blocks."""
    return {name: _first(shards, name, FINE) or weight.info.type for name, weight in shards.weights.items()}


def errors(shards: Shards, progress: Progress) -> dict[str, dict[GGMLType, float]]:
    """Of each weight in each type that it can have; kept, since they are the same the next time."""
    kept = shards.folder / "errors.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        return {name: {TYPES[kind]: error for kind, error in row.items()} for name, row in found.items()}
    table: dict[str, dict[GGMLType, float]] = {}
    for number, (name, weight) in enumerate(shards.weights.items()):
        progress("weigh errors", number, len(shards.weights))
        able = [element for element in CANDIDATES if weight.fits(element)]
        table[name] = {element: shards.error(name, element) for element in able}
    _write(kept, table)
    return table


def sensitivities(
    shards: Shards, trials: Trials, table: Mapping[str, Mapping[GGMLType, float]], seconds: float, progress: Progress
) -> dict[str, float]:
    """The factor of each weight, by trials that take about ``seconds`` in all: one per weight, or, where that would
    take too long, one per group of the same weight in neighbouring layers."""
    calm = fine(shards)
    floor = trials.kld(calm).value
    groups = grouped(list(shards.weights), int(seconds / max(trials.seconds, 1e-3)))
    found: dict[str, float] = {}
    for number, group in enumerate(groups):
        progress("try weights", number, len(groups))
        rough = {name: element for name in group if (element := _first(shards, name, COARSE)) is not None}
        if not rough:
            raise InputError(
                f"{group[0]} has rows of {shards.weights[group[0]].width}, into which no type of blocks divides"
            )
        lost = trials.kld({**calm, **rough}).value - floor
        noise = sum(table[name][element] for name, element in rough.items())
        found |= dict.fromkeys(group, lost / noise if noise else 0.0)
    return _lifted(found)


def grouped(names: Sequence[str], most: int) -> list[list[str]]:
    """``names`` in at most about ``most`` groups: the same weight of layers next to each other."""
    span = 1
    while True:
        groups: dict[tuple[str, int], list[str]] = {}
        for name in names:
            match = LAYER.match(name)
            key = (match[2], int(match[1]) // span) if match else (name, 0)
            groups.setdefault(key, []).append(name)
        if len(groups) <= most or span > len(names):
            return list(groups.values())
        span *= 2


def _lifted(factors: Mapping[str, float]) -> dict[str, float]:
    """Without factors at or below nothing, which only chance gives."""
    positive = sorted(value for value in factors.values() if value > 0)
    least = LEAST_SHARE * positive[len(positive) // 2] if positive else 1.0
    return {name: max(value, least) for name, value in factors.items()}


def _first(shards: Shards, name: str, kinds: Sequence[str]) -> GGMLType | None:
    fitting: Iterator[GGMLType] = (TYPES[kind] for kind in kinds if shards.weights[name].fits(TYPES[kind]))
    return next(fitting, None)


def _write(path: Path, table: Mapping[str, Mapping[GGMLType, float]]) -> None:
    with appearing(path) as partial:
        rows = {name: {element.name: error for element, error in row.items()} for name, row in table.items()}
        partial.write_text(json.dumps(rows))
