"""What a text foretells, and when computing it ahead pays: lists and arithmetic, no model."""

from __future__ import annotations

import random

import pytest
from ingle.runtime.engine.governor import Governor, Record
from ingle.runtime.engine.lookup import WORDS, Lookup


def place_before(tokens: list[int]) -> int | None:
    """Where the last words of a text end in it before, the latest such place."""
    last = tokens[-WORDS:]
    return next((end for end in range(len(tokens) - 1, WORDS - 1, -1) if tokens[end - WORDS : end] == last), None)


def test_a_lookup_finds_the_latest_place_and_follows_it() -> None:
    draws, tokens = random.Random(3), [random.Random(3).randrange(3) for _ in range(30)]
    lookup, following = Lookup(tokens), None
    for count in range(400):
        token = draws.randrange(3) if count % 40 < 25 else tokens[-7]
        followed = following is not None and tokens[following] == token
        tokens.append(token)
        lookup.saw()
        following = following + 1 if followed and following is not None else place_before(tokens)
        assert lookup.foretold(5)[:1] == ([] if following is None else [tokens[following]])
        assert (lookup.streak > 0) is (followed and count > 0)


def test_the_end_of_a_text_is_repeated_as_it_was() -> None:
    tokens = [9, 1, 2, 3, 4, 1, 2, 3]
    lookup = Lookup(tokens)
    lookup.saw()
    assert lookup.foretold(9) == [4, 1, 2, 3, 4, 1, 2, 3, 4]


def test_no_picture_is_foretold() -> None:
    lookup = Lookup([1, 2, 3, 4, -7, -7, 5, 1, 2, 3])
    lookup.saw()
    assert lookup.foretold(1) == [4]
    assert lookup.foretold(2) == []


def record(streak: int, passages: int = 0, copied: int = 0, begun: int = 0) -> Record:
    return Record(written=1000, streak=streak, passages=passages, copied=copied, begun=begun)


def governor(lone_s: float = 0.01, sequences: int = 1) -> Governor:
    made = Governor()
    made.observe(sequences, sequences, lone_s, 0.0)
    return made


def test_nothing_is_drafted_without_a_streak_and_much_with_a_long_one() -> None:
    assert governor().draft([record(0)], 256, 0) == 0
    drafted = [governor().draft([record(streak)], 256, 0) for streak in (1, 14, 30, 100)]
    assert drafted == sorted(drafted)
    assert drafted[0] == 0
    assert drafted[1] in (15, 31)
    assert drafted[3] == 63


def test_what_steps_cost_decides() -> None:
    cheap, dear = governor(), governor()
    for _ in range(20):
        cheap.observe(1, 16, 0.012, 0.0)
        dear.observe(1, 16, 0.16, 0.0)
    assert cheap.draft([record(3)], 256, 0) == 15
    assert dear.draft([record(12)], 16, 0) == 0
    assert dear.draft([record(12)], 16, 1e4) == 15, "what was measured long ago is not believed for ever"


@pytest.mark.parametrize("records", [[record(50), record(0)], [record(50)] * 5])
def test_nobody_waits_for_drafts_of_others(records: list[Record]) -> None:
    assert governor(sequences=len(records)).draft(records, 256, 0) == 0


def test_several_sequences_share_the_rows() -> None:
    assert governor(sequences=2).draft([record(100), record(100)], 256, 0) == 31


def test_room_and_time_bound_a_draft() -> None:
    assert governor().draft([record(100)], 20, 0) == 15
    assert governor(lone_s=0.1).draft([record(100)], 256, 0) == 15
    assert governor().draft([record(100)], 1, 0) == 0


def test_a_sequence_whose_drafts_lost_gets_no_more() -> None:
    loser = record(50)
    loser.balance = -5 - 0.015 * loser.written
    assert governor().draft([loser], 256, 0) == 0


def test_a_record_learns_how_long_passages_are() -> None:
    short, long = record(5, passages=5, copied=20, begun=9), record(5, passages=5, copied=500, begun=9)
    assert short.expected(15) < 5 < 12 < long.expected(15)
    assert record(3, passages=5, copied=500, begun=50).expected(15) < 2
    one = Record()
    for streak in (0, 1, 2, 3, 4, 5, 0, 1, 2, 0):
        one.saw(streak)
    assert (one.written, one.begun, one.passages, one.copied, one.streak) == (10, 2, 1, 5, 0)
