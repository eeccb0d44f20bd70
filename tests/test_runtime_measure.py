"""Measuring against a plain computation, against llama-perplexity's figures, and from the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import encoders
import llama_runs
import numpy as np
import pytest
from ingle.convert import convert
from ingle.convert.errors import InputError, StoreBusy, UnsupportedModel
from ingle.quantize import quantize
from ingle.runtime.llama.library import library
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.measure import passage
from ingle.runtime.measure.ledger import Ledger
from ingle.runtime.measure.measurement import Measurement, measure
from ingle.runtime.measure.passage import Passage
from ingle.runtime.measure.scores import FIELDS, Logits, scored
from ingle.runtime.measure.steps import Packing, pack, packing
from ingle.runtime.measure.summary import distance, perplexity
from ingle.runtime.measure.wish import Wish
from shell import finished

HERE = Path(__file__).parent
TEXT = HERE / "data" / "bard_heldout.txt"
GOLDEN = json.loads((HERE / "golden" / "measure.json").read_text())
CHAT = [{"role": "user", "content": "Who goes there?"}, {"role": "assistant", "content": "A friend, my lord."}]


@pytest.fixture(scope="module")
def base(bard_gguf: Mapping[str, Path]) -> Path:
    return bard_gguf["f32"]


@pytest.fixture(scope="module")
def small(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize(base, tmp_path_factory.mktemp("measure") / "small.gguf", "Q4_K_M").path


def made(lengths: Sequence[int], first: int = 0) -> list[Passage]:
    return [Passage(np.arange(length, dtype=np.int32) + 100 * index, first) for index, length in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [(5,), (5, 5, 5), (8, 3, 8, 2), (40, 3, 17), (8, 9)])
@pytest.mark.parametrize("first", [0, 1])
def test_each_prediction_is_made_once_from_the_logits_before_it(lengths: Sequence[int], first: int) -> None:
    passages = made(lengths, first)
    seen = []
    for step in pack(passages, Packing(rows=8, sequences=2)):
        assert 0 < step.tokens <= 8
        assert len({span.slot for span in step.spans}) == len(step.spans) <= 2
        assert step.fresh == (step.spans[0].start == 0)
        inputs = np.concatenate([
            span.tokens[max(0, span.first - span.start) :] for span in step.spans
        ])  # fmt: skip
        seen += [(int(inputs[row]), int(target)) for row, target in zip(step.rows, step.targets, strict=True)]
    assert seen == [
        (int(one.tokens[at]), int(one.tokens[at + 1])) for one in passages for at in range(first, len(one.tokens) - 1)
    ]


def test_a_large_vocabulary_makes_small_steps() -> None:
    assert packing(512, 4096) == Packing(2048, 4)
    assert packing(512, 256_000) == Packing(256, 1)


def test_scores_are_those_of_a_plain_computation_in_f64() -> None:
    random = np.random.default_rng(1)
    mine, theirs = (random.normal(0, 4, (9, 300)).astype(np.float32) for _ in range(2))
    (step,) = pack([Passage(random.integers(0, 300, 10).astype(np.int32), 0)], Packing(16, 1))
    with ThreadPoolExecutor(2) as pool:
        found = scored(Logits(step, mine), Logits(step, theirs), pool)
        alone = scored(Logits(step, mine), None, pool)
    for row, target in enumerate(step.targets):
        log_p, log_q = (
            [x - math.log(sum(math.exp(y) for y in logits[row].tolist())) for x in logits[row].tolist()]
            for logits in (mine, theirs)
        )
        kld = sum(math.exp(q) * (q - p) for p, q in zip(log_p, log_q, strict=True))
        want = (-log_p[target], -log_q[target], kld, math.exp(log_p[target]) - math.exp(log_q[target]))
        assert found[row, :4] == pytest.approx(want, abs=5e-6)
        assert found[row, 4] == (np.argmax(log_p) == np.argmax(log_q))
        assert alone[row].tolist() == [found[row, 0], 0, 0, 0, 0]


def test_summaries_by_hand() -> None:
    scores = np.zeros((4, len(FIELDS)), np.float32)
    scores[:, 0] = [1, 2, 3, 4]
    scores[:, 1] = [1, 2, 3, 3]
    scores[:, 2] = [0, 0.5, 1, 2.5]
    scores[:, 3] = [0.1, -0.1, 0.1, -0.1]
    scores[:, 4] = [1, 1, 1, 0]
    far = distance(scores)
    assert perplexity(scores).value == pytest.approx(math.exp(2.5))
    assert perplexity(scores).error == pytest.approx(math.exp(2.5) * math.sqrt(1.25 / 3))
    assert (far.kld.value, far.kld_median, far.kld_max) == (1, 0.75, 2.5)
    assert (far.log_ratio.value, far.same_top.value) == (0.25, 0.75)
    assert (far.delta_p.value, far.rms_delta_p.value) == pytest.approx((0, 0.1))


def test_figures_are_those_of_llama_perplexity(base: Path, small: Path, tmp_path: Path) -> None:
    """Of weights as 4 bits hold them, computed as f32: kernels for 4 bits round otherwise on each kind of CPU, those
    for f32 with AVX512 and without."""
    golden = GOLDEN["avx512" if b"AVX512 = 1" in library().llama_print_system_info() else "avx2"]
    held = quantize(small, tmp_path / "held.gguf", "F32", requantize=True).path
    found = measure([held], Wish(TEXT, length=GOLDEN["chunk"]), against=base).models[0]
    far = found.distance
    assert far is not None
    mine = {
        "perplexity": found.perplexity,
        "base_perplexity": far.base_perplexity,
        "kld": far.kld,
    }
    for name, estimate in mine.items():
        assert (estimate.value, estimate.error) == pytest.approx(golden[name], abs=5e-5), name
    for name in ("kld_median", "kld_90", "kld_99", "kld_max"):
        assert getattr(far, name) == pytest.approx(golden[name][0], abs=5e-5), name
    assert 100 * far.rms_delta_p.value == pytest.approx(golden["rms_delta_p_percent"][0], abs=1e-3)
    assert 100 * far.same_top.value == pytest.approx(golden["same_top_percent"][0], abs=1e-3)


def test_perplexity_is_that_of_each_token_after_those_before_it(base: Path) -> None:
    """By llama.cpp asked for one text alone, without attention's shortcuts."""
    found = measure([base], Wish(TEXT, length=64, most=1)).models[0]
    with llama_runs.context(base) as (model, handle):
        tokens = model.vocab.tokenize(TEXT.read_text())[:64]
        llama_runs.compute(library().llama_decode, handle, tokens)
        logits = np.stack([
            np.ctypeslib.as_array(library().llama_get_logits_ith(handle, at), (model.vocab.size,)).copy()
            for at in range(64)
        ]).astype(np.float64)  # fmt: skip
    surprises = [np.log(np.exp(logits[at]).sum()) - logits[at, tokens[at + 1]] for at in range(32, 63)]
    assert found.perplexity.value == pytest.approx(math.exp(np.mean(surprises)), rel=2e-4)


def test_a_model_is_no_distance_from_itself(base: Path) -> None:
    found = measure([base], Wish(TEXT, length=64, most=2), against=base)
    far = found.models[0].distance
    assert far is not None
    assert (far.kld.value, far.kld_max, far.rms_delta_p.value, far.same_top.value) == (0, 0, 0, 1)
    assert far.base_perplexity == found.models[0].perplexity


def test_an_interrupted_run_goes_on_where_it_was(base: Path, small: Path, ingle_home: Path) -> None:
    wish = Wish(TEXT, length=64, most=8)
    seen: list[int] = []

    def interrupt(_stage: str, done: int, _total: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    long = Wish(TEXT, length=1024, most=1)  # one passage in steps of its own has nothing to go on from
    with pytest.raises(KeyboardInterrupt):
        measure([small], wish, against=base, progress=interrupt)
    (kept,) = (ingle_home / "measuring").iterdir()
    assert kept.stat().st_size == 8 * 31 * len(FIELDS) * 4
    with kept.open("ab") as file:
        file.write(b"torn")
    again: list[int] = []
    resumed = measure([small], wish, against=base, progress=lambda _stage, done, _total: again.append(done))
    assert again == [512]
    assert resumed.models[0].tokens_per_second is None
    assert list((ingle_home / "measuring").iterdir()) == []
    fresh = measure([small], wish, against=base)
    assert fresh.models[0].tokens_per_second
    assert fresh.models[0].distance == resumed.models[0].distance
    assert measure([small], long).predictions == 511


def test_a_step_without_predictions_is_part_of_a_passage(
    base: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a vocabulary of 150,000 the first half of a chunk, which is not scored, is a step of its own."""
    wish = Wish(TEXT, length=128, most=2)
    whole = measure([small, base], wish, against=base)
    monkeypatch.setattr("ingle.runtime.measure.steps.MOST_LOGITS_BYTES", 64 * 4 * 4096)
    assert packing(128, 4096) == Packing(64, 1)
    apart = measure([small, base], wish, against=base)
    assert apart.predictions == whole.predictions == 126
    # Of the base, whose f32 no kernel rounds: what 4 bits multiply is rounded to 8, in steps that a last digit decides.
    assert apart.models[1].perplexity.value == pytest.approx(whole.models[1].perplexity.value, rel=1e-5)


def test_the_same_measurement_twice_at_once_is_refused(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "x", 5)
    with pytest.raises(StoreBusy):
        Ledger(tmp_path / "x", 5)
    first.close()
    Ledger(tmp_path / "x", 5).close()


@pytest.fixture(scope="module")
def model(base: Path) -> Iterator[NativeModel]:
    model = NativeModel(base)
    yield model
    model.close()


def test_records_are_passages_of_their_own(model: NativeModel, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [{"messages": CHAT}, {"prompt": "To be"}, {"text": "or not to be"}, "that is the question"]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = passage.read(path, model)
    texts = [model.vocab.detokenize(one.tokens.tolist(), special=True) for one in found.passages]
    assert "A friend, my lord." in texts[0]
    assert texts[1:] == ["To be", "or not to be", "that is the question"]
    assert all(one.first == 0 for one in found.passages)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "is not a file"),
        ("empty.txt", b"", "fewer than one chunk"),
        ("short.txt", b"To be", "fewer than one chunk of 512"),
        ("latin.txt", b"caf\xe9", "not UTF-8: byte 3 is 0xe9"),
        ("empty.jsonl", b"\n", "no records"),
        ("broken.jsonl", b'"to be"\n{"prompt"\n', "broken.jsonl:2 is not JSON"),
        ("shape.jsonl", b'{"question": "?"}', "shape.jsonl:1 is neither a chat"),
        ("number.jsonl", b'{"text": 3}', "number.jsonl:1 is neither a chat"),
        ("long.jsonl", json.dumps("word " * 2000).encode(), "where 2 to 1,024 can be measured"),
    ],
)
def test_a_text_of_no_use_is_refused(
    model: NativeModel, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        passage.read(tmp_path / name, model)


def test_a_chunk_longer_than_the_model_reads_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="a chunk of 2048 tokens: this model reads 2 to 1024"):
        measure([base], Wish(TEXT, length=2048))


def test_models_that_read_differently_are_not_compared(base: Path, tmp_path: Path) -> None:
    other = convert(HERE / "checkpoints" / "qwen2", tmp_path / "other.gguf", "f32").path
    with pytest.raises(InputError, match="as different tokens"):
        measure([other], Wish(TEXT, length=16), against=base)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    encoders.write(tmp_path / "checkpoint", encoders.recipe("bert_sentence"))
    path = convert(tmp_path / "checkpoint", tmp_path / "model.gguf", "f32").path
    with pytest.raises(UnsupportedModel, match="predicts no next tokens"):
        measure([path], Wish(TEXT))


def test_the_command_prints_the_same_figures(base: Path, small: Path) -> None:
    want: Measurement = measure([small], Wish(TEXT, length=64, most=4), against=base)
    far = want.models[0].distance
    assert far is not None
    options = ("--against", base, "--on", TEXT, "--ctx", "64", "--chunks", "4")
    code, out, complaints = finished("measure", small, *options, "--json")
    assert code == 0, complaints
    record = json.loads(out)
    assert record["models"][0]["distance"]["kld"]["value"] == pytest.approx(far.kld.value, rel=1e-6)
    assert record["predictions"] == 4 * 31
    code, out, complaints = finished("measure", small, base, *options)
    assert code == 0, complaints
    assert [line.split()[0] for line in out.splitlines()] == ["MODEL", "small.gguf", base.name]
    assert f"{far.kld.value:.5f}" in out
    assert "124 of 256 tokens scored" in complaints
    code, out, complaints = finished("measure", small, *options, "--plot", small.with_name("loss.png"))
    assert code == 0, complaints
    assert small.with_name("loss.png").read_bytes().startswith(b"\x89PNG")
    assert finished("measure", small, "--on", TEXT, "--plot", small.with_name("no.png"))[0] == 2
    code, out, _ = finished("measure", base, "--on", TEXT, "--ctx", "64", "--chunks", "1")
    assert "KL divergence" not in out and "perplexity" in out
