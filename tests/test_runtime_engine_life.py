"""How an engine is loaded, ends and dies, and what it says of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from engines import GOLDEN, GREEDY, PROMPT, Home, ids
from ingle.convert import convert, gguf
from ingle.convert.errors import (
    BadGGUF,
    EngineClosed,
    EngineCrashed,
    EngineError,
    InputError,
    QueueFull,
)
from ingle.runtime import machine
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.process import EngineProcess
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Request


def test_one_request_too_many_is_told_so(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f16"], LoadOptions(parallel=1, max_queue=1))
    streams = [engine.submit(Request(PROMPT, GREEDY, max_tokens=50, ignore_eos=True)) for _ in range(3)]
    with pytest.raises(QueueFull, match="2 requests are in flight"):
        streams[2].wait_accepted()
    assert [len(ids(stream)) for stream in streams[:2]] == [50, 50]
    engine.close()


def test_closing_ends_what_runs(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f16"], LoadOptions())
    stream = engine.submit(Request(PROMPT, GREEDY, ignore_eos=True))
    deltas = iter(stream)
    next(deltas)
    engine.close()
    engine.close()
    with pytest.raises(EngineClosed):
        list(deltas)
    with pytest.raises(EngineClosed):
        engine.submit(Request(PROMPT)).wait_accepted()
    assert not engine.alive


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(kv_type="q8_0"),
        LoadOptions(kv_type="f32", flash_attention="off"),
        LoadOptions(kv_type="bf16"),
        LoadOptions(mmap=False, threads=1, threads_prefill=2),
        LoadOptions(prefix_cache=False, prefill_chunk=16),
    ],
)
def test_load_options_give_the_same_greedy_answer(bard_gguf: Mapping[str, Path], options: LoadOptions) -> None:
    engine = Engine(bard_gguf["f32"], options)
    case = GOLDEN[0]
    answer = ids(engine.submit(Request(tuple(case["prompt_ids"]), GREEDY, max_tokens=8, ignore_eos=True)))
    assert answer == case["greedy_ids"][:8]
    engine.close()


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(kv_type="q9"),
        LoadOptions(kv_type="q8_0", flash_attention="off"),
        LoadOptions(context_length=1),
        LoadOptions(context_length=512, kv_cells=256),
    ],
)
def test_impossible_load_options_are_refused(bard_gguf: Mapping[str, Path], home: Home, options: LoadOptions) -> None:
    with pytest.raises(InputError):
        home(bard_gguf["f16"], options)


def test_what_was_decided_is_told(bard_gguf: Mapping[str, Path]) -> None:
    engine = Engine(bard_gguf["f16"], LoadOptions(gpu_layers=99, context_length=2000))
    info = engine.info
    assert (info.context_trained, info.context_length, info.context_reason) == (1024, 2000, "asked for")
    assert info.gpu_layers == 0
    assert any("built without GPU support" in warning for warning in info.warnings)
    assert any("beyond the 1024" in warning for warning in info.warnings)
    assert info.eog_tokens == (0, 2)
    assert info.special_tokens["eos_token"] == "<|im_end|>"
    assert info.kv_bytes == info.kv_cells * 2 * 5 * 4 * 32 * 2  # keys and values, 5 layers, 4 heads of 32, f16
    engine.close()


def test_a_broken_file_is_an_error_not_a_crash(tmp_path: Path, bard_gguf: Mapping[str, Path], home: Home) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(bard_gguf["f16"].read_bytes()[:200_000])
    with pytest.raises(BadGGUF, match=r"cut\.gguf"):
        home(cut, LoadOptions())


def test_weights_that_are_not_numbers_never_become_text(tmp_path: Path, bard_gguf: Mapping[str, Path]) -> None:
    broken = tmp_path / "nan.gguf"
    source = bard_gguf["f32"]
    data = bytearray(source.read_bytes())
    name = "output_norm.weight"
    at = bytes(data).index(gguf.read(source).tensor(name).tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    broken.write_bytes(data)
    engine = Engine(broken)
    with pytest.raises(EngineError, match="nan"):
        engine.submit(Request(PROMPT, GREEDY)).text()
    engine.close()


def test_a_native_crash_is_an_error_with_the_signal(bard_gguf: Mapping[str, Path]) -> None:
    engine = EngineProcess(bard_gguf["f16"])
    stream = engine.submit(Request(PROMPT, GREEDY, ignore_eos=True))
    deltas = iter(stream)
    next(deltas)
    os.kill(children()[0].pid, signal.SIGSEGV)
    with pytest.raises(EngineCrashed, match="SIGSEGV"):
        list(deltas)
    with pytest.raises(EngineCrashed):
        engine.tokenize("x")
    assert not engine.alive
    engine.close()


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def python(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


START = """
    import sys, time
    from pathlib import Path
    from ingle.runtime.engine.engine import Engine
    from ingle.runtime.engine.process import EngineProcess
    from ingle.runtime.request import Request, Sampling
    engine = {home}(Path(sys.argv[1]))
    stream = iter(engine.submit(Request("To be", Sampling(temperature=0), ignore_eos=True)))
    next(stream)
"""


@pytest.mark.parametrize("name", ["Engine", "EngineProcess"])
def test_the_interpreter_ends_quietly_with_a_live_model(bard_gguf: Mapping[str, Path], name: str) -> None:
    out, err = (process := python(START.format(home=name), str(bard_gguf["f16"]))).communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"", b"")


def test_the_child_ends_with_its_parent(bard_gguf: Mapping[str, Path]) -> None:
    script = START.format(home="EngineProcess") + "    print('up', flush=True); time.sleep(60)\n"
    with python(script, str(bard_gguf["f16"])) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        [child] = psutil.Process(parent.pid).children()
        parent.kill()
        deadline = time.monotonic() + 2
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("context", "warned"), [(None, True), (64, False)])
def test_a_cache_that_brings_the_long_rope_is_told(tmp_path: Path, context: int | None, warned: bool) -> None:
    path = tmp_path / "phi3.gguf"
    convert(Path(__file__).parent / "checkpoints" / "phi3", path, "f32")
    engine = Engine(path, LoadOptions(context_length=context))
    assert any("rope factors" in warning for warning in engine.info.warnings) == warned
    engine.close()


def test_threads_of_the_kernels_never_share_a_core(bard_gguf: Mapping[str, Path]) -> None:
    tasks = Path("/proc/self/task")
    cores, others = machine.core_groups(2), set(tasks.iterdir())
    engine = Engine(bard_gguf["f16"], LoadOptions(threads=2, threads_prefill=2))
    before = os.sched_getaffinity(0)
    ids(engine.submit(Request(PROMPT, GREEDY, max_tokens=2)))
    kernels = [task for task in set(tasks.iterdir()) - others if (task / "comm").read_text().startswith("ingle-")]
    found = sorted(sorted(os.sched_getaffinity(int(task.name))) for task in kernels)
    engine.close()
    assert found == sorted(sorted(group) for group in cores) or not cores
    assert os.sched_getaffinity(0) == before


def test_a_conversation_returns_from_ordinary_memory(bard_gguf: Mapping[str, Path], home: Home) -> None:
    engine = home(bard_gguf["f32"], LoadOptions(kv_type="f32"))
    prompts = [tuple(range(start, start + 100)) for start in (300, 1000)]
    first = [ids(engine.submit(Request(prompt, GREEDY, max_tokens=20, ignore_eos=True))) for prompt in prompts]
    assert engine.stats().kv_used < 130
    assert engine.stats().parked_bytes > 0
    for prompt, answer in zip(prompts, first, strict=True):
        again = engine.submit(Request(prompt, GREEDY, max_tokens=20, ignore_eos=True))
        assert ids(again) == answer
        assert again.usage.cached_tokens == 99
    engine.close()
