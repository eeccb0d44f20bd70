"""Promises on the example model: held, or refused with what can be had; and what the file says of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from ingle.convert import gguf
from ingle.convert.errors import InputError
from ingle.convert.ggml import TYPES
from ingle.quantize import Choices, quantize
from ingle.quantize import shards as shards_room
from ingle.runtime.cli.quantize import quantize_command
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.measure import passage
from ingle.runtime.measure.measurement import measure
from ingle.runtime.measure.wish import Wish as Measuring
from ingle.runtime.promise import losses, speed
from ingle.runtime.promise.bench import Wish
from ingle.runtime.promise.fulfil import Decision, decide
from ingle.runtime.promise.losses import grouped
from ingle.runtime.promise.promise import Promise, parse_size
from ingle.runtime.promise.trials import Reading, Trials
from test_quantize_native import llama_metadata, llama_shapes, tensor_plan

TEXT = Path(__file__).parent / "data" / "bard_heldout.txt"
SECONDS = 2.0
SIZE = 1_600_000
KINDS = ("Q2_K", "Q3_K", "IQ4_NL", "Q4_K", "Q5_0", "Q5_K", "Q6_K", "Q8_0")
"""Quick to make."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def quick(ingle_home: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was tried for one test is not tried again for the next; few rows tell enough of an error."""
    monkeypatch.setenv("INGLE_HOME", str(kept))
    monkeypatch.setattr(shards_room, "SAMPLE_WEIGHTS", 1 << 12)
    monkeypatch.setattr(losses, "CANDIDATES", tuple(TYPES[kind] for kind in KINDS))


@pytest.fixture(scope="module")
def source(bard_gguf: Mapping[str, Path], kept: Path) -> Path:
    """The first and the last layer of the example model: as sensitive as the whole, in half the time."""
    whole, path = gguf.read(bard_gguf["f16"]), kept / "short-F16.gguf"
    renamed = {
        name: name.replace("blk.4.", "blk.1.")
        for name in whole.tensors
        if not name.startswith(("blk.1.", "blk.2.", "blk.3."))
    }
    plans = [
        gguf.TensorPlan(new, whole.tensors[old].shape, whole.tensors[old].type, lambda old=old: [whole.tensor(old)])  # type: ignore[misc]
        for old, new in renamed.items()
    ]
    gguf.write(path, {**whole.metadata, "llama.block_count": 2}, plans)
    return path


def decided(source: Path, on: Path | None = TEXT, **promise: object) -> Decision:
    return decide(Wish(source, Promise(**promise), on, seconds=SECONDS))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "size"), [
    ("3.2GB", 3_200_000_000), ("900 MiB", 900 << 20), ("12345", 12_345), ("1.5k", 1500), ("2T", 2 * 10**12), ("7b", 7),
])  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "3.2XB", "-1MB", "3 i", "1e9", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


@pytest.mark.parametrize("promise", [{}, {"max_kld": -0.1}, {"max_bits_per_weight": float("nan")}])
def test_what_promises_nothing_is_refused(promise: Mapping[str, float]) -> None:
    with pytest.raises(InputError):
        Promise(**promise)  # type: ignore[arg-type]


def test_groups_are_neighbours_of_one_kind() -> None:
    names = ["token_embd.weight", *(f"blk.{at}.{role}.weight" for at in range(4) for role in ("attn_q", "ffn_up"))]
    assert len(grouped(names, 100)) == 9
    assert grouped(names, 5)[1] == ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]
    assert len(grouped(names, 1)) == 3


def test_a_size_is_held_to_the_byte_and_used(source: Path, tmp_path: Path) -> None:
    found = decided(source, max_bytes=SIZE)
    found.blueprint.write(found.mix, tmp_path / "out.gguf", found.size_bytes)
    written = gguf.read(tmp_path / "out.gguf")
    assert 0.97 * SIZE < written.size_bytes == found.size_bytes <= SIZE
    assert {name: info.type for name, info in written.tensors.items()} == {
        name: found.mix.get(name, info.type) for name, info in gguf.read(source).tensors.items()
    }
    assert len(set(found.mix.values())) > 2
    assert written.metadata["ingle.promise.kld"] == np.float32(found.distance.kld.value)
    sizes, losses = [point.size_bytes for point in found.front], [point.kld for point in found.front]
    assert sizes == sorted(sizes)
    assert losses == sorted(losses, reverse=True)


def test_pieces_lose_what_the_file_loses(source: Path, tmp_path: Path) -> None:
    found = decided(source, max_bytes=SIZE)
    found.blueprint.write(found.mix, tmp_path / "out.gguf", found.size_bytes)
    model = NativeModel(source)
    passages, vocab_size = passage.read(TEXT, model).passages, model.vocab.size
    model.close()
    with ThreadPoolExecutor(2) as pool:
        trials = Trials(found.blueprint.pieces, Reading.of(passages, vocab_size), tmp_path, 2, pool)
        pieces = trials.kld(found.mix)
        again = Trials(found.blueprint.pieces, Reading.of(passages, vocab_size), tmp_path, 2, pool)
    assert again.known.popitem()[1] == pieces
    (whole,) = measure([tmp_path / "out.gguf"], Measuring(TEXT), against=source).models
    assert whole.distance is not None
    assert pieces.value == pytest.approx(whole.distance.kld.value, rel=0.02)


def test_at_the_size_of_llama_quantize_less_is_lost(source: Path, tmp_path: Path) -> None:
    any_size = decided(source, max_bytes=SIZE)
    matrix = Choices(any_size.matrix)
    theirs = quantize(source, tmp_path / "theirs.gguf", "Q4_K_M", choices=matrix)
    ours = decided(source, max_bytes=theirs.size_bytes)
    ours.blueprint.write(ours.mix, tmp_path / "ours.gguf", ours.size_bytes)
    found = measure([tmp_path / "ours.gguf", theirs.path], Measuring(TEXT), against=source).models
    mine, other = (model.distance.kld.value for model in found if model.distance)
    assert mine < 0.8 * other


def test_bits_per_weight_are_held(source: Path) -> None:
    assert 4.3 < decided(source, max_bits_per_weight=4.4).bits_per_weight <= 4.4


def test_a_divergence_is_held_where_it_was_not_chosen(source: Path) -> None:
    found = decided(source, max_kld=0.02)
    assert 0.01 < found.distance.kld.value <= 0.02
    assert found.size_bytes < 0.45 * source.stat().st_size


def test_what_no_blocks_hold_is_held_by_weights_that_stay(source: Path) -> None:
    found = decided(source, max_kld=0.00005)
    assert found.distance.kld.value <= 0.00005
    assert TYPES["F16"] in found.mix.values()


def test_a_size_that_cannot_be_had_is_refused_with_the_nearest(source: Path) -> None:
    with pytest.raises(InputError) as refusal:
        decided(source, max_bytes=500_000)
    nearest = int(refusal.value.hint.split("--max-size ")[1].split(",")[0])
    assert decided(source, max_bytes=nearest).size_bytes == nearest


def test_a_size_and_a_divergence_that_exclude_each_other_are_refused(source: Path) -> None:
    with pytest.raises(InputError, match="together") as refusal:
        decided(source, max_bytes=1_300_000, max_kld=0.005)
    assert "--max-size" in refusal.value.hint


def test_memory_holds_the_file_and_its_cache(source: Path) -> None:
    roomy = decided(source, memory_bytes=1 << 30, context_length=1024)
    assert set(roomy.mix.values()) == {TYPES["Q8_0"]}
    with pytest.raises(InputError, match="context of 1,000,000 tokens"):
        decided(source, memory_bytes=1 << 30, context_length=1_000_000)


def test_fast_is_faster_and_loses_little(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"Q4_K": 5.0, "IQ4_NL": 0.5}

    def rates(elements: list[object], _threads: int) -> dict[object, float]:
        return {one: next((rate for key, rate in slow.items() if one.name.startswith(key)), 1.0) for one in elements}  # type: ignore[attr-defined]

    monkeypatch.setattr(speed, "seconds_per_weight", rates)
    fast = decided(source, max_bytes=SIZE, goal="cpu-fast")
    best = decided(source, max_bytes=SIZE)
    assert fast.size_bytes <= SIZE
    assert fast.seconds < sum(
        np.prod(gguf.read(source).tensors[name].shape) * (5.0 if element.name.startswith("Q4_K") else 1.0)
        for name, element in best.mix.items()
    )
    assert fast.distance.kld.value < 2 * best.distance.kld.value


def test_what_is_quantized_already_keeps_no_promise(source: Path, tmp_path: Path) -> None:
    small = quantize(source, tmp_path / "small.gguf", "Q8_0").path
    with pytest.raises(InputError, match=r"already quantized: .* is Q8_0") as caught:
        decided(small, max_bits_per_weight=6.0)
    assert "--requantize" not in caught.value.hint


def test_widths_of_no_256_and_a_text_of_its_own(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    path, random = tmp_path / "narrow.gguf", np.random.default_rng(1)
    shapes = llama_shapes(layers=2, width=96, ff=160, kv_width=48, vocabulary=4096)
    vocabulary = {key: v for key, v in gguf.read(bard_gguf["f16"]).metadata.items() if key.startswith("tokenizer.")}
    metadata = llama_metadata(layers=2, width=96, ff=160, heads=4, kv_heads=2) | vocabulary
    gguf.write(path, metadata, [tensor_plan(random, name, shape, "F16") for name, shape in shapes.items()])
    found = decided(path, on=None, max_bits_per_weight=6.0)
    assert found.on == "its own text"
    assert found.bits_per_weight <= 6.0
    assert {element.block for element in found.mix.values()} == {32}


def test_the_speed_of_each_type_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the processor's time of the one thread that computes, which others on the machine cannot lengthen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=time.thread_time))
    kinds = [TYPES["Q4_0"], TYPES["IQ3_S"]]
    found = speed.seconds_per_weight(kinds, 1)
    assert 0 < found[TYPES["Q4_0"]] < found[TYPES["IQ3_S"]]
    monkeypatch.setattr(speed, "_measured", None)
    assert speed.seconds_per_weight(kinds, 1) == found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(quantize_command, [*map(str, arguments)])


def test_the_command_writes_explains_and_draws(source: Path, here: Path) -> None:
    result = command(source, "--max-size", "1.6MB", "--on", TEXT, "-o", "out.gguf", "--plot", "out.png")
    assert result.exit_code == 0, result.output
    assert "at most 1,600,000 bytes: held" in result.stdout
    assert Path("out.gguf").stat().st_size <= SIZE
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(command(source, "--max-size", "1.6MB", "--on", TEXT, "--dry-run", "--json").stdout)
    assert found["path"] is None
    assert found["size_bytes"] == Path("out.gguf").stat().st_size


@pytest.mark.parametrize("arguments", [
    ["--max-size", "3MB", "-t", "Q4_K_M"], ["--max-size", "3MB", "--pure"], ["--ctx", "512"], ["--goal", "cpu-fast"],
    ["--plot", "a.png"], ["--bpw", "0"], ["--for", "that-machine"], ["--max-size", "3MB", "--imatrix", "auto"],
])  # fmt: skip
def test_what_does_not_go_together_is_refused(source: Path, here: Path, arguments: list[str]) -> None:
    assert command(source, *arguments).exit_code == 2
    assert list(here.iterdir()) == []
