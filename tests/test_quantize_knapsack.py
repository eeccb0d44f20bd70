"""The knapsack of types: against every combination there is, and at its edges."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from ingle.quantize.knapsack import Option, front, hull, losing, within

Choices = Mapping[str, Sequence[Option[str]]]

options = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=4).map(
    lambda pairs: [Option(f"{cost}/{loss}", cost, loss) for cost, loss in pairs]
)
choices = st.lists(options, min_size=1, max_size=4).map(lambda rows: {str(at): row for at, row in enumerate(rows)})


def every(choices: Choices) -> list[tuple[float, float]]:
    """Cost and loss of each combination."""
    combined = itertools.product(*choices.values())
    return [(sum(one.cost for one in mix), sum(one.loss for one in mix)) for mix in combined]


def test_the_hull_keeps_what_is_worth_its_price() -> None:
    row = [Option("b", 2, 6), Option("a", 1, 10), Option("dear", 3, 5.9), Option("c", 4, 3), Option("worse", 5, 4)]
    assert [option.kind for option in hull(row)] == ["a", "b", "c"]


@given(choices)
def test_no_mix_is_better_than_one_of_the_front_at_its_size(choices: Choices) -> None:
    for mix in front(choices):
        assert not any(cost <= mix.cost and loss < mix.loss for cost, loss in every(choices))


@given(choices, st.integers(0, 120))
def test_a_budget_is_never_exceeded_and_nearly_used(choices: Choices, budget: int) -> None:
    mix = within(choices, budget)
    able = [loss for cost, loss in every(choices) if cost <= budget]
    if mix is None:
        assert not able
        return
    assert mix.cost <= budget
    steps = [option.loss for row in choices.values() for option in hull(row)]
    assert mix.loss <= min(able) + max(steps)  # at most one upgrade of the best is missed


@given(choices, st.integers(0, 120))
def test_the_cheapest_of_the_front_that_loses_little_enough(choices: Choices, most: int) -> None:
    mix = losing(choices, most)
    able = [one for one in front(choices) if one.loss <= most]
    assert (mix.cost if mix else None) == min((one.cost for one in able), default=None)
    assert mix is not None or all(loss > most for _, loss in every(choices))
