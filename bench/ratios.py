"""Figures of several servers, compared inside a block: ours by theirs, with the result that is aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from .report import condition_line, line

Block = Mapping[str, Sequence[Mapping[str, float]]]
"""By server: the figures of each run."""


@dataclass(frozen=True)
class Goal:
    """``what`` in ``unit``, ours by that of ``peer``, is to be ``bound`` at most, or at least."""

    what: str
    unit: str
    peer: str
    bound: float
    at_least: bool = False

    @property
    def text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:.3g}"

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True)
class Line:
    """A goal and what was found: medians over blocks, the ratio with its range."""

    goal: Goal
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    blocks: int


def lines_of(goals: Sequence[Goal], blocks: Sequence[Block], ours: str) -> list[Line]:
    return [_line_of(goal, blocks, ours) for goal in goals]


def _line_of(goal: Goal, blocks: Sequence[Block], ours: str) -> Line:
    sides = [[mean(run[goal.what] for run in block[name]) for block in blocks] for name in (ours, goal.peer)]
    ratios = [mine / other for mine, other in zip(*sides, strict=True)]
    return Line(goal, median(sides[0]), median(sides[1]), median(ratios), min(ratios), max(ratios), len(blocks))


def ratios_table(lines: Sequence[Line], conditions: Mapping[str, str]) -> str:
    head = ["what", "ingle serve", "peer", "its figure", "ratio", "goal", "", "blocks"]
    rows = [line(_cells(found)) for found in lines]
    return "\n".join([condition_line(conditions), "", line(head), line(["---"] * len(head)), *rows]) + "\n"


def _cells(found: Line) -> list[str]:
    goal = found.goal
    ratio = f"**{found.ratio:.3f}** ({found.low:.3f}-{found.high:.3f})"
    verdict = "met" if goal.met(found.ratio) else "**missed**"
    figures = [f"{figure:.4g} {goal.unit}" for figure in (found.ours, found.theirs)]
    return [goal.what, figures[0], goal.peer, figures[1], ratio, goal.text, verdict, str(found.blocks)]
