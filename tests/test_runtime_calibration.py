"""Which way a model is computed: measured in a probe of its first layers, kept, and bent to what was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from ingle.convert import gguf
from ingle.convert.errors import InputError
from ingle.convert.ggml import TYPES
from ingle.runtime.bert.native import quick_way
from ingle.runtime.cli.main import main
from ingle.runtime.engine import way as ways_of_engine
from ingle.runtime.llama import calibration, kernels
from ingle.runtime.llama.backend import Levels
from ingle.runtime.llama.calibration import Way, fastest, ways
from ingle.runtime.llama.library import levels
from ingle.runtime.options import LoadOptions

REPACKED_FLASH = Way(True, True, 1e-4, 5e-4)
REPACKED = Way(True, False, 2e-4, 4e-4)
PLAIN_FLASH = Way(False, True, 0.9e-4, 6e-4)
PLAIN = Way(False, False, 0.5e-4, 3e-4)
ALL = [REPACKED_FLASH, REPACKED, PLAIN_FLASH, PLAIN]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ingle"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Three layers of a Llama with a kind of tokenizer that the probe does not need."""
    path = tmp_path / "model.gguf"
    sizes = {"context_length": 2048, "embedding_length": 64, "block_count": 3, "feed_forward_length": 128}
    metadata: dict[str, gguf.Value] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.attention.head_count": 2,
        **{f"llama.{key}": value for key, value in sizes.items()},
    }
    shapes = {f"attn_{name}": (64, 64) for name in ("q", "k", "v", "output")}
    shapes |= {"ffn_gate": (128, 64), "ffn_up": (128, 64), "ffn_down": (64, 128)}
    named = {f"blk.{layer}.{name}.weight": shape for layer in range(3) for name, shape in shapes.items()}
    norms = [f"blk.{layer}.{name}_norm.weight" for layer in range(3) for name in ("attn", "ffn")]
    named |= dict.fromkeys([*norms, "output_norm.weight"], (64,))
    gguf.write(
        path, metadata, [plan(name, shape) for name, shape in (named | {"token_embd.weight": (500, 64)}).items()]
    )
    return path


def plan(name: str, shape: tuple[int, ...]) -> gguf.TensorPlan:
    return gguf.TensorPlan(name, shape, TYPES["F32"], lambda: [np.full(shape, 0.01, np.float32)])


def test_the_probe_is_a_model_and_is_measured_once(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 0)
    monkeypatch.setattr(calibration, "LIMIT_S", 60)
    monkeypatch.setattr(calibration, "MOST_SPREAD", 1e9)
    found = ways(model, 1, "f16")
    assert [(way.repack, way.flash_attention) for way in found] == [
        (True, True), (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert all(way.prompt_s > 0 and way.answer_s > 0 for way in found)
    monkeypatch.setattr(calibration, "_measure", lambda *_: pytest.fail("measured again"))
    assert ways(model, 1, "f16") == found
    assert len(list(cache.glob("ways-*"))) == 1


@pytest.mark.parametrize("limit", ["LIMIT_S", "MOST_SPREAD"])
def test_a_machine_that_is_too_busy_is_asked_again(
    limit: str, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 0)
    monkeypatch.setattr(calibration, limit, -1)
    assert ways(model, 1, "f16") == []
    assert not list(cache.glob("ways-*"))


def test_small_missing_and_broken_files_are_not_measured(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_measure", lambda *_: pytest.fail("measured"))
    assert ways(model, 1, "f16") == []
    assert ways(tmp_path / "nothing.gguf", 1, "f16") == []
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 0)
    model.write_bytes(b"GGUF but not really")
    assert ways(model, 1, "f16") == []


def test_the_quickest_turn_wins() -> None:
    assert fastest(ALL) == PLAIN
    assert fastest(ALL, flash_attention=True) == REPACKED_FLASH
    assert fastest([]) is None


@pytest.mark.parametrize(("share", "repacks"), [(0.97, False), (0.9, True)])
def test_what_is_hardly_quicker_leaves_the_weights_as_they_are_in_the_file(share: float, repacks: bool) -> None:
    repacked = Way(True, False, PLAIN.prompt_s * share, PLAIN.answer_s * share)
    assert fastest([repacked, PLAIN]) == (repacked if repacks else PLAIN)


@pytest.mark.parametrize("products", ["", "avx512_vnni"])
def test_unless_measured_weights_are_repacked_where_products_are_llama_cpps(
    products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ways", lambda *_: [])
    monkeypatch.setattr(kernels, "levels", lambda: Levels(products=products))
    assert ways_of_engine.choose(Path("model.gguf"), LoadOptions()).repack == (not products)
    for asked, repack in (("on", True), ("off", False)):
        assert ways_of_engine.choose(Path("model.gguf"), LoadOptions(repack=asked)).repack == repack


def test_flash_attention_is_left_out_only_where_it_loses_more_than_a_warm_probe_makes_it_lose() -> None:
    def without(share: float) -> Way:
        return Way(True, False, REPACKED_FLASH.prompt_s * share, REPACKED_FLASH.answer_s * share)

    assert fastest([REPACKED_FLASH, without(0.88)]) == REPACKED_FLASH
    assert fastest([REPACKED_FLASH, without(0.5)]) == without(0.5)


@pytest.mark.parametrize(
    ("options", "repack", "flash_attention"),
    [
        (LoadOptions(), False, "off"),
        (LoadOptions(repack="on"), True, "on"),
        (LoadOptions(flash_attention="on"), True, "on"),
        (LoadOptions(kv_type="q8_0"), True, "on"),
        (LoadOptions(kv_type="f32"), False, "off"),
        (LoadOptions(repack="off", flash_attention="on"), False, "on"),
        (LoadOptions(gpu_layers=-1, repack="on"), True, "auto"),
    ],
)
def test_what_was_asked_for_is_done(
    options: LoadOptions, repack: bool, flash_attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "ways", lambda *_: ALL)
    chosen = ways_of_engine.choose(Path("model.gguf"), options)
    assert (chosen.repack, chosen.flash_attention) == (repack, flash_attention)


def test_bad_options_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(InputError, match="threads is 0"):
        ways_of_engine.choose(Path("model.gguf"), LoadOptions(threads=0))


def test_the_doctor_says_which_way_and_why(
    bard_gguf: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def doctor(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out

    model = str(bard_gguf["f16"])
    assert "weights" not in doctor()
    layout = "as in the file" if levels().products else "repacked"
    assert f"{layout} (not measured: too small" in doctor(model)
    monkeypatch.setattr(calibration, "ways", lambda *_: ALL)
    said = doctor(model)
    assert "as in the file (the quickest turn of a chat)" in said
    assert "repacked, with flash attention: a token of a prompt 100 µs, of an answer 500 µs" in said
    facts = json.loads(doctor(model, "--json", "--threads", "1"))
    assert (facts["attention"], facts["products"]) == levels()
    assert f"attention        {levels().attention or 'llama.cpp'}" in said
    assert f"products         {levels().products or 'llama.cpp'}" in said
    assert facts["bert_layers"] == quick_way() and f"layers of BERT   {quick_way() or 'llama.cpp'}" in said
    assert (facts["threads"], facts["repack"], facts["flash_attention"], len(facts["ways"])) == (1, False, "off", 4)


def test_what_is_kept_can_be_read_by_people(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WORTH_MEASURING_BYTES", 0)
    monkeypatch.setattr(calibration, "_measure", lambda *_: ALL)
    ways(model, 2, "f16")
    (kept,) = cache.glob("ways-*")
    assert [Way(**way) for way in json.loads(kept.read_text())] == ALL
