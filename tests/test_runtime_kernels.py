"""The proof of llama.cpp's AMX kernels: believed when its child lives, when it dies, and remembered."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ingle.convert import gguf
from ingle.convert.ggml import TYPES
from ingle.runtime.llama import kernels


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A CPU with AMX, and no verdict yet."""
    kernels.extra_buffers_work.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pretend(monkeypatch, b"CPU : AMX_INT8 = 1 | ")
    yield tmp_path
    kernels.extra_buffers_work.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, system_info: bytes) -> None:
    library = SimpleNamespace(__file__=__file__, llama_print_system_info=lambda: system_info)
    monkeypatch.setattr(kernels, "library", lambda: library)


def verdicts(folder: Path) -> list[str]:
    return [path.read_text() for path in (folder / "ingle").glob("amx-*")]


def test_this_machine_reads_a_prompt_in_the_child() -> None:
    """The real library: whatever its AMX kernels are worth, the child ends well or by one of their signals."""
    assert kernels.proof_exit_code() in (0, -signal.SIGILL, -signal.SIGSEGV)


@pytest.mark.parametrize(("exit_code", "verdict", "kept"), [(0, True, "good"), (-4, False, "bad"), (1, False, "bad")])
def test_the_child_decides_and_is_asked_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, verdict: bool, kept: str
) -> None:
    asked = []
    monkeypatch.setattr(kernels, "proof_exit_code", lambda: asked.append(1) or exit_code)
    assert kernels.extra_buffers_work() is verdict
    kernels.extra_buffers_work.cache_clear()
    assert kernels.extra_buffers_work() is verdict
    assert verdicts(fresh) == [kept]
    assert len(asked) == 1


def test_a_cpu_without_amx_needs_no_proof(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, b"CPU : AVX2 = 1 | ")
    monkeypatch.setattr(kernels, "proof_exit_code", lambda: pytest.fail("a child was started"))
    assert kernels.extra_buffers_work()
    assert not verdicts(fresh)


def test_a_cache_that_cannot_be_written_changes_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "ingle").write_text("a file where the folder should be")
    monkeypatch.setattr(kernels, "proof_exit_code", lambda: 0)
    assert kernels.extra_buffers_work()


@pytest.mark.parametrize(
    ("width", "kind", "system_info", "right"),
    [
        (32, "Q8_0", b"CPU : AMX_INT8 = 1 | ", False),
        (64, "Q8_0", b"CPU : AMX_INT8 = 1 | ", True),
        (32, "F32", b"CPU : AMX_INT8 = 1 | ", True),
        (32, "Q8_0", b"CPU : AVX2 = 1 | ", True),
    ],
)
def test_rows_of_a_single_block_are_kept_from_amx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, kind: str, system_info: bytes, right: bool
) -> None:
    pretend(monkeypatch, system_info)
    values = [np.zeros(TYPES[kind].nbytes((64, width)), np.uint8)]
    weight = gguf.TensorPlan("blk.0.ffn_up.weight", (64, width), TYPES[kind], lambda: values)
    gguf.write(tmp_path / "m.gguf", {"general.architecture": "llama"}, [weight])
    assert kernels.compute_rightly(gguf.read(tmp_path / "m.gguf")) is right
