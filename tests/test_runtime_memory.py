"""What a model takes of the memory, told from its header: against llama.cpp's own sums, and in machines of any size."""

from __future__ import annotations

import logging
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import sweeping
from engines import resident
from ingle.convert import convert, gguf
from ingle.convert.errors import BadGGUF, InputError
from ingle.runtime.engine.fitting import Facts, Fitting
from ingle.runtime.engine.memory import PROGRAM_BYTES, TOKEN_BYTES, Demand, largest
from ingle.runtime.llama import mapping
from ingle.runtime.llama.context import Context, ContextOptions
from ingle.runtime.llama.dry import _KV, _STATES, DryModel, Taken, _compute, _sum
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.llama.parts import paths_of
from ingle.runtime.options import LoadOptions

MB = 1_000_000
KINDS = ("qwen2", "cohere2", "deepseek_v3", "gemma4", "gpt_oss", "lfm2", "mamba2", "qwen3_5")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("attention", ["on", "off"])
def test_llama_cpp_takes_what_the_header_foretold(
    name: str, attention: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.gguf"
    convert(sweeping.write_checkpoint(tmp_path / "checkpoint", sweeping.load(name)), path, "f16")
    options = ContextOptions(512, 16, 16, 1, 1, "f16", attention)
    with DryModel.of([gguf.read(path)]) as dry:
        foretold = dry.context(options)
    model = NativeModel(path)
    caplog.clear()
    with caplog.at_level(logging.INFO, "ingle.native"):
        Context(model, options).close()
    model.close()
    said = caplog.messages
    assert foretold == Taken(_sum(_KV, said), _sum(_STATES, said), _compute(said))
    assert foretold.compute > 0
    assert foretold.kv + foretold.states > 0


class FakeDry(DryModel):
    """1,000 bytes a cell, half of that when quantized; without flash attention its graph grows by 10 bytes a cell."""

    def __init__(self) -> None:
        self.vocabulary = 1000
        self._handle = None

    def context(self, options: ContextOptions) -> Taken:
        kv = options.cells * (1000 if options.kv_type == "f16" else 500)
        return Taken(kv, 0, MB + (10 * options.cells if options.flash_attention == "off" else 0))


def fitting(available_bytes: int, weights_bytes: int = 100 * MB, trained: int = 131_072, **options: object) -> Fitting:
    wishes = LoadOptions(**options)  # type: ignore[arg-type]
    demand = Demand(FakeDry(), weights_bytes, wishes)
    return Fitting(Facts("x.gguf", trained, 8), wishes, demand, available_bytes)


REST = PROGRAM_BYTES + 1000 * TOKEN_BYTES + MB + 16 * 4 * 1000
"""What the fake model takes beside weights and cache."""


def available_for(cache_bytes: int, weights_bytes: int = 100 * MB) -> int:
    """Of which a 16th is left to others."""
    return (cache_bytes + weights_bytes + REST) * 16 // 15 + 16


def test_the_window_that_nobody_asked_for_is_one_that_fits() -> None:
    small = fitting(available_for(1_100_000))
    small.require()
    assert small.sizes.window == 1024
    assert "131072" in small.sizes.reason
    assert "1024" in small.sizes.reason
    assert small.footprint("on").kv == 1024 * 1000
    assert fitting(1 << 40, trained=2048).sizes.window == 2048


def test_what_is_asked_for_and_does_not_fit_is_refused_with_the_largest_that_would() -> None:
    asked = fitting(available_for(10 * MB), context_length=50_000)
    with pytest.raises(InputError, match=r"50,176 tokens needs 0\.\d\d GB .* 0\.\d\d GB are there") as refused:
        asked.require()
    assert refused.value.hint == "the largest that fits: --ctx 9984, or --kv-type q8_0 --ctx 19968"
    fitting(available_for(10 * MB), context_length=9984).require()
    with pytest.raises(InputError):
        fitting(available_for(10 * MB), context_length=9984 + 256).require()


def test_a_cache_that_was_asked_for_is_named_as_it_was_asked_for() -> None:
    with pytest.raises(InputError) as refused:
        fitting(available_for(10 * MB), kv_cells=50_000, context_length=1000).require()
    assert "--kv-cells 9984" in refused.value.hint


def test_weights_beyond_the_memory_are_read_from_the_disk_if_they_are_mapped() -> None:
    large = fitting(1000 * MB, weights_bytes=5000 * MB)
    large.require()
    assert large.too_large
    assert "read from the disk" in large.warnings()[0]
    for option in ({"mmap": False}, {"repack": "on"}):
        with pytest.raises(InputError, match=r"weights 5\.00 GB") as refused:
            fitting(1000 * MB, weights_bytes=5000 * MB, **option).require()
        assert "ingle fit" in refused.value.hint


def test_attention_without_flash_is_taken_only_where_its_scores_fit() -> None:
    assert fitting(1 << 34, context_length=8192).flash_attention() == "off"
    tight = fitting(
        available_for(16_384 * 1000 + 100_000, weights_bytes=20_000 * MB), 20_000 * MB, context_length=16_384
    )
    assert tight.fits
    assert tight.flash_attention() == "on"


@pytest.mark.parametrize(("room", "found"), [(0, 0), (255, 0), (256, 256), (1000, 768), (10_000, 2048)])
def test_the_largest_cache_is_a_multiple_of_its_step(room: int, found: int) -> None:
    assert largest(lambda cells: cells <= room, 2000) == found


def test_pages_of_a_mapped_file_are_given_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (1 << 20))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:].count(b"x") == 1 << 20
        assert resident(path) == 1 << 20
        mapping.give_back([path])
        assert resident(path) == 0
        assert mapped[-1:] == b"x"


@pytest.mark.parametrize(
    ("buffers", "copied"),
    [
        ({"CPU_Mapped": 300.0, "CPU_REPACK": 200.0}, True),
        ({"CPU_Mapped": 300.0, "AMX": 200.0}, True),
        ({"CPU_Mapped": 300.0, "CPU_REPACK": 0.0}, False),
        ({"CPU_Mapped": 300.0}, False),
        ({"CPU": 300.0, "CPU_REPACK": 200.0}, False),
    ],
)
def test_a_copy_is_known_by_the_buffers(buffers: dict[str, float], copied: bool) -> None:
    said = [f"load_tensors: {name:>12} model buffer size = {size:8.2f} MiB" for name, size in buffers.items()]
    assert mapping.copied(said) is copied


def test_a_missing_part_of_a_split_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    gguf.write(path, {"general.architecture": "llama", "split.count": 2}, [])
    with pytest.raises(BadGGUF, match=r"m-00002-of-00002\.gguf is missing"):
        paths_of(gguf.read(path))
    path.with_name("m-00002-of-00002.gguf").touch()
    assert [part.name for part in paths_of(gguf.read(path))] == [path.name, "m-00002-of-00002.gguf"]


LEAN = """
import sys
import ingle.runtime.engine.worker
from ingle.runtime.llama.library import library
library()
print(*sorted({"asyncio", "jinja2", "llama_cpp", "ingle.convert.families"} & sys.modules.keys()))
import llama_cpp
print(llama_cpp.Llama.__name__, llama_cpp.llama_cpp is library())
"""


def test_an_engine_of_its_own_imports_no_more_than_it_needs_and_spoils_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "Llama True"]
