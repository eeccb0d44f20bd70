"""Which type each weight gets when bytes are short: the upgrades that save most loss per byte, first.

For each weight the options on the lower convex hull of (cost, loss) are a staircase of upgrades with ever smaller
gains. Taken over all weights in the order of gain per cost they form a path of mixes, none of which can be bettered
at its own size: the Pareto front. A budget between two of them is filled with the upgrades that still fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Option(Generic[Kind]):
    """What one type of one weight costs, in bytes, and loses."""

    kind: Kind
    cost: float
    loss: float


@dataclass(frozen=True, slots=True)
class Mix(Generic[Kind]):
    """An option for each weight; cost and loss are the sums."""

    options: Mapping[str, Option[Kind]]

    @property
    def cost(self) -> float:
        return sum(option.cost for option in self.options.values())

    @property
    def loss(self) -> float:
        return sum(option.loss for option in self.options.values())

    @property
    def kinds(self) -> dict[str, Kind]:
        return {name: option.kind for name, option in self.options.items()}


@dataclass(frozen=True, slots=True)
class _Upgrade(Generic[Kind]):
    name: str
    before: Option[Kind]
    after: Option[Kind]

    @property
    def gain(self) -> float:
        """Loss saved per unit of cost."""
        return (self.before.loss - self.after.loss) / (self.after.cost - self.before.cost)


def hull(options: Sequence[Option[Kind]]) -> list[Option[Kind]]:
    """The options worth having, cheapest first: each loses less than the one before, with falling gains."""
    kept: list[Option[Kind]] = []
    for option in sorted(options, key=lambda one: (one.cost, one.loss)):
        if kept and option.loss >= kept[-1].loss:
            continue
        while len(kept) > 1 and _Upgrade("", kept[-2], kept[-1]).gain <= _Upgrade("", kept[-1], option).gain:
            kept.pop()
        kept.append(option)
    return kept


def front(choices: Mapping[str, Sequence[Option[Kind]]]) -> list[Mix[Kind]]:
    """Every mix of the path, from the cheapest to the one that loses least."""
    stairs = {name: hull(options) for name, options in choices.items()}
    options = {name: steps[0] for name, steps in stairs.items()}
    found = [Mix(dict(options))]
    for upgrade in _upgrades(stairs):
        options[upgrade.name] = upgrade.after
        found.append(Mix(dict(options)))
    return found


def within(choices: Mapping[str, Sequence[Option[Kind]]], budget: float) -> Mix[Kind] | None:
    """The mix of at most ``budget`` that loses least, as far as upgrades in order find it; None where none fits."""
    stairs = {name: hull(options) for name, options in choices.items()}
    options = {name: steps[0] for name, steps in stairs.items()}
    left = budget - sum(option.cost for option in options.values())
    if left < 0:
        return None
    for upgrade in _upgrades(stairs):
        more = upgrade.after.cost - options[upgrade.name].cost
        if more <= left and upgrade.after.loss < options[upgrade.name].loss:
            options[upgrade.name] = upgrade.after
            left -= more
    return Mix(options)


def losing(choices: Mapping[str, Sequence[Option[Kind]]], most: float) -> Mix[Kind] | None:
    """The cheapest mix of the path that loses at most ``most``; None where none does."""
    path = front(choices)
    return next((mix for mix in path if mix.loss <= most), None)


def _upgrades(stairs: Mapping[str, Sequence[Option[Kind]]]) -> list[_Upgrade[Kind]]:
    steps = (
        _Upgrade(name, before, after)
        for name, options in stairs.items()
        for before, after in itertools.pairwise(options)
    )
    return sorted(steps, key=lambda upgrade: -upgrade.gain)
