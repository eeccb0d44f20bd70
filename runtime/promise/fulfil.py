"""From a promise to the file that holds it, or to the nearest that can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ...convert.errors import InputError
from ...convert.progress import Progress, silent
from ...quantize import knapsack
from ...quantize.imatrix import Imatrix
from ..measure.summary import Distance
from . import search
from .bench import Bench, Wish, prepared
from .blueprint import Blueprint
from .bounds import Bounds
from .search import Mix, Space

ATTEMPTS = 6
CLOSE_ENOUGH = 0.92
"""Of the KL divergence that was allowed: a mixture that loses as much is not made smaller any more."""

AIM = 0.97
FRONT_POINTS = 12


@dataclass(frozen=True, slots=True)
class Point:
    """A file that could be had: its size, the KL divergence and the seconds of a turn, both estimated."""

    size_bytes: int
    kld: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen. distance was measured on ``judged`` tokens that took no part in the choice.

    bound: the size that was promised, in words. estimated: KL divergence by weight, as the search sees it. front: from
    the smallest file to the best. seconds: of a turn of a chat, estimated; 0 where speed did not count.
    """

    wish: Wish
    mix: Mix
    size_bytes: int
    bits_per_weight: float
    bound: str
    distance: Distance
    judged: int
    on: str
    estimated: Mapping[str, float]
    front: tuple[Point, ...]
    seconds: float
    matrix: Imatrix
    blueprint: Blueprint


def decide(wish: Wish, progress: Progress = silent) -> Decision:
    """Find the types. Writes nothing but what is kept for the next time.

    Raises:
        InputError: the promise cannot be held (the message says what can be had), or the text is of no use; or the
            source cannot be quantized. BadGGUF, LoadFailed: it cannot be loaded.
    """
    with ExitStack() as stack:
        bench = prepared(wish, stack, progress)
        return _Search(bench, progress).decision()


class _Search:
    """Narrows what a promise allows down to one mixture."""

    def __init__(self, bench: Bench, progress: Progress) -> None:
        self._bench = bench
        self._progress = progress
        self._space = bench.space
        self._promise = bench.wish.promise
        self._blueprint = Blueprint.of(bench)
        self._bounds = Bounds.of(self._promise, bench.source, self._blueprint.fixed_bytes)

    def decision(self) -> Decision:
        least = search.smallest(self._space)
        budget = self._bounds.budget
        if budget is not None and search.bytes_of(self._space, least) > budget:
            raise self._bounds.too_small(search.bytes_of(self._space, least), self._bench.choose.kld(least).value)
        most = self._promise.max_kld
        mix = self._within(budget or 0) if most is None else self._losing(most)
        return self._decided(mix)

    def _within(self, budget: int) -> Mix:
        """The best of what corrections around earlier choices lead to."""
        goal = self._promise.goal
        found = self._refined(lambda space: search.within(space, budget, goal))
        return found[-1] if goal == "cpu-fast" else min(found, key=lambda mix: self._bench.choose.kld(mix).value)

    def _losing(self, most: float) -> Mix:
        """The smallest (or fastest) of those that the judge finds to lose at most ``most``."""
        goal = self._promise.goal
        self._refined(lambda space: search.losing(space, most, goal) or search.finest(space))
        target, tried = most, list[tuple[float, Mix]]()
        for _ in range(ATTEMPTS):
            mix = search.losing(self._space, target, goal)
            if mix is None:  # where no type of blocks is fine enough, some weights stay as they are
                self._space = search.with_sources(self._space)
                mix = search.losing(self._space, target, goal) or search.finest(self._space)
            lost = self._bench.judge.kld(mix).value
            tried.append((lost, mix))
            if CLOSE_ENOUGH * most <= lost <= most or (lost <= most and mix == search.smallest(self._space)):
                break
            target *= min(max(AIM * most / max(lost, 1e-12), 0.1), 10.0)
        return self._holding(most, tried)

    def _holding(self, most: float, tried: Sequence[tuple[float, Mix]]) -> Mix:
        held = [mix for lost, mix in tried if lost <= most]
        if not held:
            lost, mix = min(tried, key=lambda one: one[0])
            raise InputError(
                f"a KL divergence of at most {most:g} cannot be held: the nearest that was found is {lost:.3g}, in "
                f"{self._size(mix):,} bytes",
                hint=f"the nearest: --max-kld {lost * 1.01:.2g}",
            )
        best = min(held, key=self._space.time if self._promise.goal == "cpu-fast" else self._size)
        if self._bounds.limit_bytes is not None and self._size(best) > self._bounds.limit_bytes:
            raise self._both(most, min(held, key=self._size))
        return best

    def _both(self, most: float, held: Mix) -> InputError:
        inside = search.within(self._space, self._bounds.budget or 0, "quality")
        lost = self._bench.judge.kld(inside).value
        return InputError(
            f"{self._bounds.because} and a KL divergence of at most {most:g} cannot be held together: within that size "
            f"{lost:.3g} can be had, and {most:g} takes {self._size(held):,} bytes",
            hint=f"the nearest: --max-kld {lost * 1.01:.2g}, or --max-size {self._size(held)}",
        )

    def _refined(self, choose: Callable[[Space], Mix]) -> list[Mix]:
        self._space, found = search.refined(
            self._space, self._bench.choose, choose, self._bench.wish.seconds / 2, self._progress
        )
        return found

    def _size(self, mix: Mix) -> int:
        return self._blueprint.fixed_bytes + search.bytes_of(self._space, mix)

    def _decided(self, mix: Mix) -> Decision:
        size = self._size(mix)
        distance = self._bench.judge.distance(mix)
        return Decision(
            wish=self._bench.wish,
            mix=mix,
            size_bytes=size,
            bits_per_weight=self._bounds.bits_per_weight(size),
            bound=self._bounds.because,
            distance=distance,
            judged=self._bench.judge.predictions,
            on=self._bench.material.on,
            estimated={name: self._space.losses.of(name, element) for name, element in mix.items()},
            front=self._front(distance.kld.value / max(self._space.losses.total(mix), 1e-12)),
            seconds=self._space.time(mix),
            matrix=self._bench.matrix,
            blueprint=self._blueprint.measured(distance, self._bench.judge.predictions),
        )

    def _front(self, scale: float) -> tuple[Point, ...]:
        """Of the whole path, so many points, evenly spread over sizes; estimates scaled to what was measured."""
        path = [mix.kinds for mix in knapsack.front(self._space.options())]
        sizes = [self._size(mix) for mix in path]
        step = (sizes[-1] - sizes[0]) / (FRONT_POINTS - 1)
        wanted = [
            min(range(len(path)), key=lambda at: abs(sizes[at] - sizes[0] - step * k)) for k in range(FRONT_POINTS)
        ]
        return tuple(
            Point(sizes[at], scale * self._space.losses.total(path[at]), self._space.time(path[at]))
            for at in dict.fromkeys(wanted)
        )
