"""The arithmetic of the measurements: ratios, rejected blocks, tables, and what the client reads off the wire."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from bench.blocks import Block, Ratio, ratio, run_block
from bench.client import Answer, ask, lines, unchunked
from bench.crowds import percentile, waits
from bench.finding import Finding
from bench.make_model import SHAPES, config, merges, tensor_shapes, tokenizer
from bench.ratios import Goal, lines_of, ratios_table
from bench.reading import LONGEST, SHORTEST, Line, like, texts
from bench.reading import table as reading_table
from bench.report import OURS, Row, replace_table, table

QUIET = Block({OURS: (10.0, 10.0), "peer": (20.0, 20.0)}, foreign=0.01)


def test_a_block_interleaves_forwards_and_backwards() -> None:
    order: list[str] = []
    clock = count(1)

    def measure(name: str) -> float:
        order.append(name)
        return float(next(clock))

    def foreign(work: object) -> float:
        work()
        return 0.25

    block = run_block({name: lambda name=name: measure(name) for name in "abc"}, foreign)
    assert "".join(order) == "abccba"
    assert block == Block({"a": (1.0, 6.0), "b": (2.0, 5.0), "c": (3.0, 4.0)}, 0.25)


def test_speeds_of_the_same_work_add_up_as_times() -> None:
    assert Block({"a": (10.0, 30.0)}, 0).speed("a") == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("speeds", "foreign", "kept"),
    [((10.0, 10.0), 0.01, True), ((10.0, 10.0), 0.05, False), ((10.0, 8.0), 0.01, False)],
)
def test_a_disturbed_block_is_rejected(speeds: tuple[float, float], foreign: float, kept: bool) -> None:
    assert Block({"a": speeds}, foreign).is_quiet(0.03) is kept


def test_the_ratio_is_the_median_over_blocks() -> None:
    blocks = [Block({"a": (x, x), "b": (10.0, 10.0)}, 0) for x in (9.0, 10.0, 30.0)]
    found = ratio(blocks, "a", "b")
    assert (found.median, found.low, found.high) == pytest.approx((1.0, 0.9, 3.0))


def test_goals_compare_our_figures_with_those_of_the_same_block() -> None:
    wait = Goal("wait", "s", "peer", 0.1)
    speed = Goal("speed", "tok/s", "peer", 1.0, at_least=True)
    blocks = [
        {
            OURS: [{"wait": 1.0, "speed": 9.0}, {"wait": 3.0, "speed": 11.0}],
            "peer": [{"wait": theirs, "speed": 8.0}, {"wait": theirs, "speed": 8.0}],
        }
        for theirs in (20.0, 40.0, 10.0)
    ]
    found = lines_of([wait, speed], blocks, OURS)
    assert [(line.ours, line.theirs, line.ratio, line.low, line.high) for line in found] == [
        (2.0, 20.0, 0.1, 0.05, 0.2),
        (10.0, 8.0, 1.25, 1.25, 1.25),
    ]
    assert wait.met(0.1)
    assert not wait.met(0.11)
    assert not speed.met(0.99)
    text = ratios_table(found, {"cpu": "abacus"})
    assert "| wait | 2 s | peer | 20 s | **0.100** (0.050-0.200) | <= 0.1 | met | 3 |" in text


def test_waits_are_those_that_the_other_prompt_was_there_for() -> None:
    stream = Answer(events=[0.0, 1.0, 2.0, 5.0, 6.0, 7.0])
    read = Answer(sent=1.5, events=[5.5])
    assert waits(stream, read) == [1.0, 3.0, 1.0]
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([float(value) for value in range(200)], 0.99) == 198.0


def test_a_table_shows_kept_blocks_and_admits_noise() -> None:
    noisy = Block(QUIET.speeds, foreign=0.5)
    rows = [Row.of("m", "decode", [QUIET, noisy], 0.03), Row.of("m", "prefill", [noisy], 0.03)]
    text = table(rows, {"cpu": "abacus"})
    assert "| m | decode | 10.0 | 20.0 | **0.500** (0.500-0.500) | 1 of 2 |" in text
    assert "| m | prefill | too noisy | too noisy | too noisy | 0 of 1 |" in text
    assert text.startswith("cpu: abacus")


def test_only_the_marked_part_of_a_page_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n")
    replace_table(page, "speed", r"new \1" + "\n")
    assert page.read_text() == "before\n<!-- speed -->\nnew \\1\n<!-- /speed -->\nafter\n"
    with pytest.raises(RuntimeError, match="nothing"):
        replace_table(page, "nothing", "")


@pytest.mark.parametrize(("figure", "at_least", "passed"), [(2, False, False), (1, False, True), (2, True, True)])
def test_a_finding_knows_its_bound(figure: float, at_least: bool, passed: bool) -> None:
    assert Finding("what", figure, 1, at_least=at_least).passed is passed


def test_lines_are_whole_however_the_bytes_arrive_and_have_the_time_of_their_end() -> None:
    pieces = [(1.0, b"on"), (2.0, b"e\ntwo\nth"), (3.0, b"ree")]
    assert list(lines(pieces)) == [(2.0, b"one\n"), (2.0, b"two\n"), (3.0, b"three")]


@pytest.mark.parametrize("body", [b"4\r\nwh", b"2\r\nok\r\n"])
def test_an_answer_that_ends_early_is_no_measurement(body: bytes) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        list(unchunked([(1.0, body)]))


def test_the_client_takes_times_and_usage_from_a_stream() -> None:
    events = [{"choices": [{"text": text}]} for text in "ab"] + [{"choices": [], "usage": {"completion_tokens": 2}}]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 7):
            piece = body[start : start + 7]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def talk() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            answer = await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", {})
        assert (answer.text, answer.usage, len(answer.events)) == ("ab", {"completion_tokens": 2}, 2)
        assert answer.sent <= answer.events[0] <= answer.events[1] <= answer.ended

    asyncio.run(talk())


@pytest.mark.parametrize(("name", "parameters"), [("smollm-135m", 134_515_008), ("qwen2.5-0.5b", 494_032_768)])
def test_a_shape_has_the_parameters_of_the_published_model(name: str, parameters: int) -> None:
    total = 0
    for _, shape in tensor_shapes(SHAPES[name]):
        size = 1
        for length in shape:
            size *= length
        total += size
    assert total == parameters
    assert config(SHAPES[name])["vocab_size"] == SHAPES[name].vocabulary


def test_the_made_tokenizer_is_whole_and_its_merges_can_be_made() -> None:
    model = tokenizer(49_152)["model"]
    vocabulary = model["vocab"]
    assert sorted(vocabulary.values()) == list(range(49_152))
    assert all(
        left in vocabulary and right in vocabulary and left + right in vocabulary for left, right in model["merges"]
    )
    joined = ["".join(pair) for pair in merges(151_936 - 259)]
    assert len(set(joined)) == len(joined) == 151_936 - 259


def test_texts_to_read_have_all_lengths() -> None:
    lengths = sorted(len(text.split()) + 2 for text in texts(["one", "two"], 400))
    assert SHORTEST <= lengths[0] < 18 and 240 < lengths[-1] <= LONGEST
    assert lengths[200] == pytest.approx((SHORTEST * LONGEST) ** 0.5, abs=8)
    assert texts(["one", "two"], 3) == texts(["one", "two"], 3)


def test_likeness_is_the_least_cosine_or_the_correlation_of_ranks() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert like(2 * vectors, vectors) == pytest.approx(1)
    assert like(np.array([[1, 0, 0], [0, 1, 0], [0, 3, 4]], np.float32), vectors) == pytest.approx(0.8)
    scores = np.array([0.1, -5, 3, 2], np.float32)
    assert like(1 / (1 + np.exp(-scores)), scores) == pytest.approx(1)
    assert like(-scores, scores) == pytest.approx(-1)


def test_a_table_of_readers_has_a_line_each() -> None:
    peer = Line("rerank", "Q8_0", "peer", 12.34, Ratio(2, 1.5, 3), None, 0.99991, "2 of 3")
    lines = reading_table([peer], {"cpu": "x"}).splitlines()
    assert lines[-1] == "| rerank | Q8_0 | peer | 12.3 pairs/s | **2.000** (1.500-3.000) |  | 0.9999 | 2 of 3 |"
