"""The best mixture of types within a budget: a knapsack over estimated losses, then corrected on the real model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...convert import gguf
from ...convert.ggml import GGMLType
from ...convert.progress import Progress
from ...quantize import knapsack
from ...quantize.knapsack import Option
from ...quantize.shards import Shards
from .losses import Losses, grouped
from .promise import Goal
from .speed import Seconds
from .trials import Trials

Mix = dict[str, GGMLType]
Choices = Mapping[str, Sequence[Option[GGMLType]]]

FAST_LOSS = 1.25
"""What ``cpu-fast`` may lose, of the loss of the best mixture within the same bounds."""

PRICES = tuple(10.0**power for power in (-3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3))

ROUNDS = 3
TRUST = 0.5
"""How much of a weight's new factor, found in the mixture, replaces the old one: single trials are noisy."""


@dataclass(frozen=True, slots=True)
class Space:
    """What can be chosen from. seconds is None where speed does not count."""

    shards: Shards
    losses: Losses
    seconds: Seconds | None = None

    def options(self) -> Choices:
        return {
            name: [
                Option(element, gguf.padded(element.nbytes(weight.info.shape)), self.losses.of(name, element))
                for element in self.losses.errors[name]
            ]
            for name, weight in self.shards.weights.items()
        }

    def time(self, mix: Mapping[str, GGMLType]) -> float:
        return sum(self.seconds(name, element) for name, element in mix.items()) if self.seconds else 0.0


def bytes_of(space: Space, mix: Mapping[str, GGMLType]) -> int:
    """Of the weights of a mixture, padded as in a file."""
    weights = space.shards.weights
    return sum(gguf.padded(element.nbytes(weights[name].info.shape)) for name, element in mix.items())


def smallest(space: Space) -> Mix:
    return knapsack.front(space.options())[0].kinds


def finest(space: Space) -> Mix:
    return knapsack.front(space.options())[-1].kinds


def with_sources(space: Space) -> Space:
    """With the type of the source as one that each weight may keep, at no loss."""
    weights = space.shards.weights
    errors = {name: {**row, weights[name].info.type: 0.0} for name, row in space.losses.errors.items()}
    return replace(space, losses=replace(space.losses, errors=errors))


def within(space: Space, budget: int, goal: Goal) -> Mix:
    """The mixture of at most ``budget`` bytes of weights, which the smallest must not exceed, that serves the goal
    best."""
    options = space.options()
    best = knapsack.within(options, budget)
    if best is None:
        return smallest(space)
    if goal == "quality" or space.seconds is None:
        return best.kinds
    limit = FAST_LOSS * best.loss
    unit = best.loss / space.time(best.kinds)
    priced = (knapsack.within(_dearer(options, space.seconds, price * unit), budget) for price in PRICES)
    return _fastest(space, [best.kinds, *(mix.kinds for mix in priced if mix)], limit)


def losing(space: Space, most: float, goal: Goal) -> Mix | None:
    """The smallest mixture (or the fastest) with a loss of at most ``most``; None where all lose more."""
    options = space.options()
    best = knapsack.losing(options, most)
    if best is None or goal == "quality" or space.seconds is None:
        return best.kinds if best else None
    unit = best.cost / space.time(best.kinds)
    priced = (knapsack.losing(_larger(options, space.seconds, price * unit), most) for price in PRICES)
    return _fastest(space, [best.kinds, *(mix.kinds for mix in priced if mix)], most)


def _fastest(space: Space, mixes: Sequence[Mix], limit: float) -> Mix:
    able = [mix for mix in mixes if space.losses.total(mix) <= limit]
    return min(able or mixes[:1], key=space.time)


def _dearer(options: Choices, seconds: Seconds, price: float) -> Choices:
    """With time counted as loss."""
    return {
        name: [replace(option, loss=option.loss + price * seconds(name, option.kind)) for option in row]
        for name, row in options.items()
    }


def _larger(options: Choices, seconds: Seconds, price: float) -> Choices:
    """With time counted as size."""
    return {
        name: [replace(option, cost=option.cost + price * seconds(name, option.kind)) for option in row]
        for name, row in options.items()
    }


def refined(
    space: Space, trials: Trials, choose: Callable[[Space], Mix], seconds: float, progress: Progress
) -> tuple[Space, list[Mix]]:
    """What ``choose`` finds, after its estimates were corrected by trials around what it found before.

    In each round every weight (or group) of the mixture is tried a step finer: what the model then loses less is what
    the weight really costs there, among the errors of the others.

    Returns the space with the corrected factors, and all mixtures that were chosen.
    """
    found = [choose(space)]
    for number in range(ROUNDS):
        space = replace(space, losses=_corrected(space, trials, found[-1], seconds / ROUNDS, number, progress))
        found.append(choose(space))
        if found[-1] in found[:-1]:
            break
    return space, found


def _corrected(space: Space, trials: Trials, mix: Mix, seconds: float, number: int, progress: Progress) -> Losses:
    losses = space.losses
    whole = trials.kld(mix).value
    groups = grouped(list(mix), int(seconds / max(trials.seconds, 1e-3)))
    factors = dict(losses.factors)
    for at, group in enumerate(groups):
        progress(f"refine {number + 1}", at, len(groups))
        finer = {name: _finer(space, name, mix[name]) for name in group}
        saved = whole - trials.kld({**mix, **finer}).value
        expected = sum(losses.of(name, mix[name]) - losses.of(name, finer[name]) for name in group)
        if expected <= 0:
            continue
        ratio = min(max(saved / expected, 0.1), 10.0)
        for name in group:
            factors[name] *= ratio**TRUST
    found = replace(losses, factors=factors)
    scale = whole / found.total(mix) if found.total(mix) else 1.0
    return replace(found, factors={name: factor * scale for name, factor in factors.items()})


def _finer(space: Space, name: str, element: GGMLType) -> GGMLType:
    """The next type on the weight's staircase with clearly less error; the finest at the end."""
    errors = space.losses.errors[name]
    able = sorted(
        (other for other in errors if errors[other] <= errors[element] / 3), key=lambda one: one.bits_per_weight
    )
    return able[0] if able else min(errors, key=lambda one: errors[one])
