"""The size of the KV cache when nobody says, and when somebody says something impossible."""

from __future__ import annotations

import pytest
from ingle.convert.errors import InputError
from ingle.runtime.cli.options import SEQUENCES
from ingle.runtime.engine.sizing import MAX_PARALLEL, choose, flash_attention, parked_bytes
from ingle.runtime.options import FlashAttention, LoadOptions

GIB = 1 << 30


def test_a_small_model_gets_its_whole_window_and_room_for_several_requests() -> None:
    sizes = choose(LoadOptions(), 1024, 5_000, 16 * GIB)
    assert (sizes.window, sizes.cells) == (1024, 16_384)
    assert "trained" in sizes.reason


def test_a_large_window_is_cut_to_the_memory_and_says_so() -> None:
    sizes = choose(LoadOptions(), 131_072, 131_072, 16 * GIB)
    assert sizes.window == sizes.cells == 16_384
    assert "131072" in sizes.reason
    assert "16384" in sizes.reason


def test_what_is_asked_for_is_given() -> None:
    sizes = choose(LoadOptions(context_length=5000, parallel=2), 131_072, 10, GIB)
    assert (sizes.window, sizes.cells, sizes.reason) == (5000, 10_240, "asked for")


def test_little_memory_still_gives_a_usable_window() -> None:
    assert choose(LoadOptions(), 131_072, 1 << 20, 1 << 20).window == 2048


def test_a_window_below_the_long_rope_stays_out_of_a_cache_above_it() -> None:
    assert choose(LoadOptions(context_length=4096), 131_072, 10, GIB, long_rope_after=4096).cells == 4096
    assert choose(LoadOptions(context_length=8192), 131_072, 10, GIB, long_rope_after=4096).cells == 16_384


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(context_length=1),
        LoadOptions(context_length=4096, kv_cells=1000),
        LoadOptions(context_length=99_999_999_999),
        LoadOptions(parallel=0),
        LoadOptions(parallel=1000),
        LoadOptions(threads=100_000),
        LoadOptions(prefill_chunk=0),
        LoadOptions(max_queue=-1),
    ],
)
def test_contradictions_are_refused(options: LoadOptions) -> None:
    with pytest.raises(InputError):
        choose(options, 8192, 100, GIB)


def test_a_window_is_cut_to_what_all_else_leaves() -> None:
    sizes = choose(LoadOptions(), 131_072, 100, 16 * GIB, most_cells=1024)
    assert sizes.window == sizes.cells == 1024
    assert "1024" in sizes.reason


def test_a_cache_that_was_asked_for_bounds_the_window() -> None:
    sizes = choose(LoadOptions(kv_cells=1000), 131_072, 100, 16 * GIB)
    assert (sizes.window, sizes.cells) == (1000, 1024)
    assert "cache" in sizes.reason
    assert choose(LoadOptions(kv_cells=9000), 2048, 100, 16 * GIB).window == 2048


def test_what_is_asked_for_is_never_cut() -> None:
    assert choose(LoadOptions(context_length=5000), 131_072, 100, 16 * GIB, most_cells=1024).window == 5000


def test_the_command_takes_as_many_parallel_requests_as_the_engine() -> None:
    assert SEQUENCES.max == MAX_PARALLEL


@pytest.mark.parametrize(
    ("options", "cells", "gpu_layers", "chosen"),
    [
        (LoadOptions(), 4096, 0, "off"),
        (LoadOptions(), 1 << 20, 0, "on"),  # scores of 32 heads, 256 rows, a million cells: 32 GiB
        (LoadOptions(kv_type="q8_0"), 4096, 0, "on"),
        (LoadOptions(kv_type="f32"), 1 << 20, 0, "off"),
        (LoadOptions(), 4096, 99, "auto"),
        (LoadOptions(flash_attention="on"), 4096, 0, "on"),
        (LoadOptions(flash_attention="off"), 1 << 20, 99, "off"),
    ],
)
def test_flash_attention_is_used_where_it_is_needed(
    options: LoadOptions, cells: int, gpu_layers: int, chosen: str
) -> None:
    found = flash_attention(options, gpu_layers=gpu_layers, cells=cells, heads=32, available_bytes=16 * GIB)
    assert found == chosen


@pytest.mark.parametrize(
    ("options", "fastest", "chosen"),
    [
        (LoadOptions(), "auto", "on"),
        (LoadOptions(), "off", "off"),  # measured
        (LoadOptions(kv_type="f32"), "auto", "off"),  # which ours does not read
        (LoadOptions(flash_attention="off"), "auto", "off"),
    ],
)
def test_our_attention_is_used_unless_it_was_measured_to_be_slower(
    options: LoadOptions, fastest: FlashAttention, chosen: str
) -> None:
    sizes = {"gpu_layers": 0, "cells": 4096, "heads": 32, "available_bytes": 16 * GIB}
    assert flash_attention(options, **sizes, fastest=fastest, own=True) == chosen


def test_parked_conversations_take_an_eighth_of_the_memory_at_most() -> None:
    assert parked_bytes(8 * GIB) == GIB
    assert parked_bytes(1 << 40) == 2 * GIB
