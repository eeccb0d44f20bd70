"""Whether a draft model pays: arithmetic, no model."""

from __future__ import annotations

import random

import pytest
from ingle.runtime.engine.governor import Governor
from ingle.runtime.engine.wager import BEGIN, TASTE, TRIAL, Odds, Wager

LONE_S, DRAFT_S = 0.01, 0.001
ROWS_S = {1: 1.0, 2: 1.9, 4: 3.6, 8: 7.4, 16: 9.0, 32: 14.0, 64: 22.0}
"""A step on two cores, in steps of one row."""

BROAD_S = {1: 1.0, 2: 1.05, 4: 1.2, 8: 1.5, 16: 2.2, 32: 4.0, 64: 7.0}
"""And where memory is what is short."""


def governor(sequences: int = 1) -> Governor:
    made = Governor()
    made.observe(sequences, sequences, LONE_S, 0.0)
    return made


def test_a_few_tokens_are_tried_and_more_where_they_are_right() -> None:
    wager, odds, counts = Wager(0.1), Odds(), []
    for _ in range(30):
        counts.append(wager.count(governor(), [odds], 64, 0.0))
        for one in (odds, wager.odds):
            one.saw(counts[-1], 0)
    assert counts[0] == TRIAL
    assert counts == sorted(counts)
    assert counts[-1] >= 31
    assert wager.count(governor(), [odds], 20, 0.0) == 15, "no more than there is room for"
    assert wager.count(governor(), [odds, Odds(0, 100)], 64, 0.0) == 0, "nobody waits for others' drafts"
    assert wager.count(governor(), [odds] * 5, 64, 0.0) == 0, "nor does a busy batch"
    assert wager.count(governor(sequences=2), [odds], 64, 0.0) == 0, "what its steps take is not known"


def test_drafts_that_lost_end_and_are_tried_again_later() -> None:
    wager = Wager(0.1)
    wager.settle(-BEGIN)
    assert wager.count(governor(), [Odds()], 64, 0.0) == 0
    assert wager.count(governor(), [Odds(99, 99)], 64, 0.0) == 0
    for _ in range(400):
        wager.rested()
    assert wager.count(governor(), [Odds()], 64, 0.0) == TRIAL


def test_a_dear_draft_model_is_hardly_asked() -> None:
    assert Wager(0.1, Odds(99, 99)).count(governor(), [Odds(99, 99)], 64, 0.0) > TRIAL
    assert Wager(0.9, Odds(99, 99)).count(governor(), [Odds(99, 99)], 64, 0.0) == 0
    learned = Wager(0.1, Odds(99, 99))
    for _ in range(20):
        learned.drafting(3, 3 * 0.9 * LONE_S)
    assert learned.count(governor(), [Odds(99, 99)], 64, 0.0) == 0


def test_it_reads_all_where_that_pays_and_else_the_end_of_a_text() -> None:
    wager, sure = Wager(0.1, Odds(99, 99)), [Odds(99, 99)]
    assert Wager(0.1).reads(governor(), [Odds()], 60, 500, 0.0) == 60
    assert Wager(0.1).reads(governor(), [Odds()], 2000, 500, 0.0) == TASTE
    assert wager.reads(governor(), sure, 2000, 500, 0.0) == 2000
    assert wager.reads(governor(), sure, 2000, 20, 0.0) == TASTE
    wager.reading(governor(), 1, 100, 1.0)
    assert wager.reads(governor(), sure, 2000, 500, 0.0) == 0, "it takes as long as the model"


@pytest.mark.parametrize(("rows_s", "chance", "low", "high"), [
    (ROWS_S, 0.0, 0.985, 1.0),
    (ROWS_S, 0.5, 0.985, 1.0),
    (ROWS_S, 0.8, 0.985, 1.0),
    (ROWS_S, 0.9, 0.985, 1.02),
    (ROWS_S, 0.995, 1.25, 2.0),
    (ROWS_S, 1.0, 1.6, 2.0),
    (BROAD_S, 0.0, 0.985, 1.0),
    (BROAD_S, 0.5, 1.1, 1.4),
    (BROAD_S, 0.8, 1.6, 2.0),
])  # fmt: skip
def test_it_wins_what_there_is_to_win_and_loses_next_to_nothing(
    rows_s: dict[int, float], chance: float, low: float, high: float
) -> None:
    """Answers of 256 tokens to prompts of 500, whose drafted tokens are right with one chance each."""
    draws, wager, learned = random.Random(1), Wager(0.1), governor()
    spent = plain = 0.0
    for _ in range(10):
        odds, written, read = Odds(), 0, 0
        while written < 256:
            if not read and (read := wager.reads(learned, [odds], 500, 256 - written, 0.0)):
                wager.reading(learned, 1, read, read * 0.3 * DRAFT_S)
                spent += read * 0.3 * DRAFT_S
            count = wager.count(learned, [odds], min(64, 256 - written), 0.0) if read else 0
            right = next((at for at in range(count) if draws.random() >= chance), count)
            step_s = _between(rows_s, 1 + count) * LONE_S
            spent += step_s + count * DRAFT_S
            written += 1 + right
            cost = learned.observe(1, 1 + count, step_s, 0.0)
            if count:
                wager.drafting(count, count * DRAFT_S)
                for one in (odds, wager.odds):
                    one.saw(right, int(right < count))
                wager.settle(1 + right - cost - count * DRAFT_S / LONE_S)
            else:
                wager.rested()
        plain += written * LONE_S
    assert low <= plain / spent <= high


def _between(points: dict[int, float], rows: int) -> float:
    few = max(size for size in points if size <= rows)
    many = min(size for size in points if size >= rows)
    share = (rows - few) / (many - few) if many > few else 0.0
    return points[few] + share * (points[many] - points[few])
