"""An engine that nobody asks gives its cache back, and goes on as if nothing had been."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from engines import GREEDY, Home, ids, long_prompt, resident
from ingle.convert.errors import LoadFailed
from ingle.quantize import quantize
from ingle.runtime.engine.engine import Engine, EngineLike
from ingle.runtime.llama.context import Context
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request

ASKED = Request(long_prompt(300), GREEDY, max_tokens=12, ignore_eos=True)
OPTIONS = LoadOptions(rest_after_s=0.1, cache_ram_bytes=64 << 20)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rested(engine: EngineLike) -> EngineLike:
    wait_until(lambda: engine.stats().resting)
    return engine


def test_an_answer_after_a_rest_is_the_same_and_finds_its_prompt(home: Home, bard_gguf: Mapping[str, Path]) -> None:
    engine = home(bard_gguf["f32"], OPTIONS)
    first = ids(engine.submit(ASKED))
    resting = rested(engine).stats()
    assert (resting.kv_used, resting.running) == (0, 0)
    assert resting.parked_bytes > 0
    stream = engine.submit(ASKED)
    assert ids(stream) == first
    assert stream.usage.cached_tokens == 299
    rested(engine).close()


def test_the_memory_is_given_back(bard_gguf: Mapping[str, Path]) -> None:
    from ingle.runtime.engine.process import EngineProcess

    engine = EngineProcess(bard_gguf["f32"], LoadOptions(rest_after_s=1.0, kv_cells=16_384, cache_ram_bytes=0))
    kv = engine.info.kv_bytes
    assert kv == 40 << 20
    for start in range(15):  # a cache takes memory as it is used
        prompt = tuple(300 + (start + place) % 700 for place in range(900))
        ids(engine.submit(Request(prompt, GREEDY, max_tokens=2, ignore_eos=True)))
    before = engine.stats()
    assert not before.resting
    after = rested(engine).stats()
    assert before.resident_bytes - after.resident_bytes > 0.6 * kv
    engine.close()


def test_a_file_whose_weights_were_laid_out_anew_takes_no_memory_while_nobody_asks(
    bard_gguf: Mapping[str, Path], tmp_path: Path
) -> None:
    path = quantize(bard_gguf["f32"], tmp_path / "bard-Q4_0.gguf", "Q4_0").path
    engine = Engine(path, LoadOptions(repack="on"))
    if not engine.info.repacked:
        pytest.skip("the kernels of this CPU compute with the weights as they lie in the file")
    first = ids(engine.submit(ASKED))
    assert resident(path) > 0, "the embeddings of the prompt's tokens"
    wait_until(lambda: resident(path) == 0)
    assert ids(engine.submit(ASKED)) == first
    engine.close()


def test_what_has_no_room_elsewhere_is_said_to_be_forgotten(
    bard_gguf: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions(rest_after_s=0.1, cache_ram_bytes=0))
    with caplog.at_level(logging.INFO, "ingle.engine"):
        first = ids(engine.submit(ASKED))
        rested(engine)
        wait_until(lambda: "311 tokens of conversations had no room" in caplog.text)
    stream = engine.submit(ASKED)
    assert (ids(stream), stream.usage.cached_tokens) == (first, 0)
    engine.close()


def test_a_rest_of_a_draft_model_and_its_model(bard_gguf: Mapping[str, Path]) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions(rest_after_s=0.1, draft=str(bard_gguf["f32"])))
    first = ids(engine.submit(ASKED))
    rested(engine)
    assert ids(engine.submit(ASKED)) == first
    engine.close()


def test_without_memory_for_the_cache_a_request_fails_and_the_next_one_may_not(
    bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LoadFailed("no memory")

    engine = Engine(bard_gguf["f32"], OPTIONS)
    first = ids(engine.submit(ASKED))
    rested(engine)
    with monkeypatch.context() as patched:
        patched.setattr(Context, "open", refuse)
        with pytest.raises(LoadFailed, match="no memory"):
            ids(engine.submit(ASKED))
    assert ids(engine.submit(ASKED)) == first
    engine.close()


def test_zero_never_rests(bard_gguf: Mapping[str, Path]) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions(rest_after_s=0.0))
    ids(engine.submit(ASKED))
    time.sleep(0.3)
    assert not engine.stats().resting
    engine.close()
