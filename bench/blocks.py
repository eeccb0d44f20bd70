"""Interleaved measurement. In a block each contender runs twice, in the order A B C C B A, so that a drift of the
machine falls on all alike. What counts is the ratio inside a block; a block that others disturbed is thrown away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MOST_SPREAD = 0.10


@dataclass(frozen=True)
class Block:
    """Speeds by contender, two each, and the share of the machine that others used meanwhile."""

    speeds: Mapping[str, tuple[float, float]]
    foreign: float

    def speed(self, name: str) -> float:
        """Of both runs together: the same work twice, so times add up (harmonic mean)."""
        first, second = self.speeds[name]
        return 2 / (1 / first + 1 / second)

    @property
    def spread(self) -> float:
        """The largest difference between a contender's two runs, relative to the faster."""
        return max(1 - min(pair) / max(pair) for pair in self.speeds.values())

    def is_quiet(self, most_foreign: float) -> bool:
        return self.foreign <= most_foreign and self.spread <= MOST_SPREAD


@dataclass(frozen=True)
class Ratio:
    """Ours by theirs: median over blocks, and the range."""

    median: float
    low: float
    high: float


def run_block(measures: Mapping[str, Callable[[], float]], foreign: Callable[[Callable[[], None]], float]) -> Block:
    """``foreign`` runs the block and returns the share that others used during it."""
    order = [*measures, *reversed([*measures])]
    speeds: dict[str, list[float]] = {name: [] for name in measures}

    def work() -> None:
        for name in order:
            speeds[name].append(measures[name]())

    share = foreign(work)
    return Block({name: (pair[0], pair[1]) for name, pair in speeds.items()}, share)


def ratio(blocks: Sequence[Block], ours: str, theirs: str) -> Ratio:
    ratios = [block.speed(ours) / block.speed(theirs) for block in blocks]
    return Ratio(median(ratios), min(ratios), max(ratios))


def median_speed(blocks: Sequence[Block], name: str) -> float:
    return median(block.speed(name) for block in blocks)
