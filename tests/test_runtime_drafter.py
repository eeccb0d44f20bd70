"""A draft model beside a model: the same answers, whoever is asked; other tokens and states that stay are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeping
from click.testing import CliRunner
from engines import GREEDY, PROMPT, ids
from ingle.convert import convert
from ingle.convert.errors import EngineError, InputError
from ingle.runtime import Model
from ingle.runtime.cli.main import ingle
from ingle.runtime.engine import drafter, pairing
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.governor import Governor
from ingle.runtime.engine.plan import plan
from ingle.runtime.engine.wager import Wager
from ingle.runtime.fit import fit
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Constraint, Request, Sampling
from safetensors.numpy import save_file
from test_runtime_drafts import told

LONG = PROMPT * 8
REQUESTS = {
    "greedy": Request(PROMPT, GREEDY, max_tokens=60, ignore_eos=True),
    "long": Request(LONG, GREEDY, max_tokens=40, ignore_eos=True),
    "again": Request(LONG + "I am", GREEDY, max_tokens=40, ignore_eos=True),
    "two": Request(PROMPT, Sampling(temperature=0.5, seed=4), max_tokens=40, n=2, ignore_eos=True),
    "penalties": Request(PROMPT, Sampling(temperature=0, repeat_penalty=1.3), max_tokens=40, ignore_eos=True),
    "constrained": Request(PROMPT, GREEDY, max_tokens=40, constraint=Constraint("start: /[a-z ]{1,99}/")),
    "to its end": Request(PROMPT, GREEDY),
    "to the window": Request(PROMPT * 50, GREEDY, ignore_eos=True),
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens from the draft model in each step, in seeded answers, too, and none from the text."""
    monkeypatch.setattr(Governor, "draft", lambda self, records, most, now: 0)
    monkeypatch.setattr(Wager, "count", seven)
    monkeypatch.setattr(Wager, "reads", lambda self, governor, odds, length, missing, now: length)
    free = "ingle.runtime.engine.drafts.Drafts.lookup"
    monkeypatch.setattr(free, lambda self, asked, resolved, tokens: drafts_lookup(tokens))


def seven(_: Wager, governor: Governor, odds: list[Any], most: int, now: float) -> int:
    return min(7, most // len(odds) - 1) if governor.may_draft(len(odds)) else 0


def drafts_lookup(tokens: list[int]) -> Any:
    from ingle.runtime.engine.lookup import Lookup

    return Lookup(tokens)


@pytest.fixture(scope="module")
def stranger(bard: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the example's tokenizer that says something else."""
    folder = tmp_path_factory.mktemp("stranger")
    checkpoint = shutil.copytree(bard, folder / "checkpoint")
    draws, weights = np.random.default_rng(3), {}
    for name, tensor in read_header(checkpoint / "model.safetensors").items():
        noise = draws.standard_normal(tensor["shape"]) * 0.05
        weights[name] = (noise if noise.ndim > 1 else noise + 1).astype(np.float32)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    convert(checkpoint, folder / "stranger.gguf", "f16")
    return folder / "stranger.gguf"


def read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


@pytest.fixture(scope="module")
def answers(bard_gguf: Mapping[str, Path]) -> dict[str, Any]:
    """Of an engine that computes nothing ahead."""
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32", speculate="off"))
    said = {name: told(engine, request) for name, request in REQUESTS.items()}
    engine.close()
    return said


@pytest.fixture(params=["itself", "a stranger"])
def drafting(request: pytest.FixtureRequest, bard_gguf: Mapping[str, Path], stranger: Path) -> Iterator[Engine]:
    path = bard_gguf["f32"] if request.param == "itself" else stranger
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32", draft=str(path)))
    yield engine
    engine.close()


def test_answers_are_the_same(eager: None, drafting: Engine, answers: dict[str, Any]) -> None:
    for name, request in REQUESTS.items():
        assert told(drafting, request) == answers[name], name
        drafting._loop._scheduler.check()
    stats, all_tokens = drafting.stats(), sum(len(tokens) for told in answers.values() for _, tokens in told)
    assert stats.model_drafted_tokens == stats.drafted_tokens > 0.5 * all_tokens
    assert stats.generated_tokens == all_tokens + 2, "the tokens that end two answers are no part of them"
    assert stats.draft_model_s > 0
    if "stranger" in drafting.info.draft:
        assert stats.model_accepted_tokens < 0.05 * stats.model_drafted_tokens
    else:
        stream = drafting.submit(REQUESTS["greedy"])
        assert len(ids(stream)) == 60
        # It is wrong where it says that the text ends, which is ignored here.
        assert stream.usage.model_accepted_tokens > 0.65 * stream.usage.model_drafted_tokens


def test_answers_side_by_side_are_the_same(eager: None, drafting: Engine, answers: dict[str, Any]) -> None:
    """Each of three has cells of its own in the draft model's cache; a fourth comes and goes."""
    names = ("greedy", "long", "penalties")
    streams = [drafting.submit(REQUESTS[name]) for name in names]
    leaver = drafting.submit(REQUESTS["again"])
    next(iter(leaver))
    leaver.cancel()
    for name, stream in zip(names, streams, strict=True):
        assert ids(stream) == answers[name][0][1], name


def test_a_small_cache_of_the_draft_model_is_enough(
    eager: None, monkeypatch: pytest.MonkeyPatch, bard_gguf: Mapping[str, Path], answers: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        "ingle.runtime.engine.engine.context_for_drafts",
        lambda options: dataclasses.replace(drafter.context_for_drafts(options), cells=256),
    )
    engine = Engine(bard_gguf["f32"], LoadOptions(kv_type="f32", draft=str(bard_gguf["f32"])))
    assert [told(engine, REQUESTS[name]) for name in ("greedy", "long")] == [answers["greedy"], answers["long"]]
    assert told(engine, REQUESTS["to the window"]) == answers["to the window"]
    engine.close()


def test_a_draft_model_that_fails_is_left_alone(
    eager: None, monkeypatch: pytest.MonkeyPatch, drafting: Engine, answers: dict[str, Any]
) -> None:
    def fail(*_: object) -> None:
        raise EngineError("llama.cpp could not compute")

    monkeypatch.setattr(drafter.Drafter, "foretold", fail)
    assert told(drafting, REQUESTS["greedy"]) == answers["greedy"]
    assert drafting._loop._drafts._drafter is None
    assert told(drafting, REQUESTS["long"]) == answers["long"]


def test_one_that_is_wrong_is_hardly_asked(bard_gguf: Mapping[str, Path], stranger: Path) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions(draft=str(stranger)))
    written = sum(len(ids(engine.submit(REQUESTS["to the window"]))) for _ in range(3))
    assert engine.stats().model_drafted_tokens < 0.1 * written
    engine.close()


def test_a_conversation_goes_on_where_the_draft_model_was(bard_gguf: Mapping[str, Path], eager: None) -> None:
    engine = Engine(bard_gguf["f32"], LoadOptions(draft=str(bard_gguf["f32"])))
    first = ids(engine.submit(REQUESTS["long"]))
    drafting = engine._loop._drafts._drafter
    assert drafting is not None
    said = [*engine.tokenize(LONG, parse_special=True), *first]
    slot = max(drafting._slots, key=lambda slot: len(slot.tokens))
    assert slot.owner is None
    assert slot.tokens[: len(said) - 8] == said[: len(said) - 8]
    read = drafter.Drafter.read
    counts: list[int] = []
    drafter.Drafter.read = lambda self, sequence: counts.append(read(self, sequence)) or counts[-1]  # type: ignore[method-assign, assignment, func-returns-value]
    try:
        ids(engine.submit(Request((*said, *said[:20]), GREEDY, max_tokens=12, ignore_eos=True)))
    finally:
        drafter.Drafter.read = read  # type: ignore[method-assign]
    assert 0 < sum(counts) < 30
    engine.close()


def test_usage_metrics_and_the_terminal_say_who_foretold(
    eager: None, bard_gguf: Mapping[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from ingle.runtime.cli.answer import figures
    from ingle.runtime.server.metrics import EngineCollector
    from ingle.runtime.server.openai_shapes import timings

    with Model.load(bard_gguf["f32"], options=LoadOptions(draft=str(bard_gguf["f16"]))) as model:
        stream = model.generate(PROMPT, sampling=GREEDY, max_tokens=40, ignore_eos=True)
        assert len(ids(stream)) == 40
        used = stream.usage
        assert used.drafted_tokens == used.model_drafted_tokens >= used.model_accepted_tokens > 20
        assert f"(of the draft model's {used.model_accepted_tokens} of {used.model_drafted_tokens})" in figures(used)
        assert timings(used)["model_accepted_tokens"] == used.model_accepted_tokens
        families = {family.name: family for family in EngineCollector(lambda: {"bard": model}).collect()}  # type: ignore[dict-item]
    by_kind = {sample.labels["kind"]: sample.value for sample in families["ingle_engine_drafted_tokens"].samples}
    assert by_kind == {"lookup": 0, "draft": used.model_drafted_tokens}


def test_what_it_takes_of_the_memory_is_counted(bard_gguf: Mapping[str, Path], stranger: Path) -> None:
    alone, both = LoadOptions(flash_attention="on"), LoadOptions(draft=str(stranger), flash_attention="on")
    took = plan(bard_gguf["f32"], both).footprint
    assert took.total - took.draft == plan(bard_gguf["f32"], alone).footprint.total
    kv = plan(stranger, alone).footprint.kv
    assert stranger.stat().st_size + kv < took.draft < stranger.stat().st_size + kv + 8_000_000
    window = fit(str(bard_gguf["f32"]), both).rows[0].windows[-1]
    assert window.footprint.draft > 0.9 * stranger.stat().st_size


def test_the_memory_of_both_must_be_there(
    bard_gguf: Mapping[str, Path], stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = LoadOptions(context_length=1024, kv_cells=1024, flash_attention="on", mmap=False)
    needed = plan(bard_gguf["f32"], options).footprint.total
    monkeypatch.setattr("ingle.runtime.machine.available_memory_bytes", lambda: needed * 16 // 15 + 4096)
    plan(bard_gguf["f32"], options)
    with pytest.raises(InputError, match=r"draft model 0\.\d\d GB"):
        plan(bard_gguf["f32"], dataclasses.replace(options, draft=str(stranger)))


VOCABULARY = {
    "tokenizer.ggml.tokens": ["a", "b", "<s>", "[PAD3]"],
    "tokenizer.ggml.token_type": np.array([1, 1, 3, 5]),
    "tokenizer.ggml.bos_token_id": 2,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer.ggml.tokens": ["a", "c", "<s>", "[PAD3]"]}, "1 is 'c' there and 'b' here"),
        ({"tokenizer.ggml.bos_token_id": 1}, "the begin of text is 1 there and 2 here"),
        ({"tokenizer.ggml.tokens": ["a", "b", "<s>", "[PAD3]", "d"]}, "5, and the model has 4"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "2, and the model has 4"),
    ],
)
def test_other_tokens_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pairing.common_tokens(VOCABULARY, VOCABULARY | change, "small.gguf")


def test_vocabularies_may_be_filled_up_differently() -> None:
    fuller = {
        "tokenizer.ggml.tokens": [*VOCABULARY["tokenizer.ggml.tokens"], "[PAD4]"],  # type: ignore[misc]
        "tokenizer.ggml.token_type": np.array([1, 1, 3, 5, 5]),
    }
    assert pairing.common_tokens(VOCABULARY, VOCABULARY | fuller, "small.gguf") == 4
    assert pairing.common_tokens(VOCABULARY | fuller, VOCABULARY, "small.gguf") == 4


def test_a_draft_model_of_another_family_is_refused(bard_gguf: Mapping[str, Path], tmp_path: Path) -> None:
    convert(sweeping.write_checkpoint(tmp_path / "mamba", sweeping.load("mamba2")), tmp_path / "mamba.gguf", "f16")
    mamba = tmp_path / "mamba.gguf"
    for path, options, said in (
        (bard_gguf["f16"], LoadOptions(draft=str(mamba)), "mamba.gguf has other tokens"),
        (mamba, LoadOptions(draft=str(mamba)), "the model keeps a recurrent state"),
        (bard_gguf["f16"], LoadOptions(draft=str(bard_gguf["f16"]), speculate="off"), "--speculate off forbids"),
    ):
        with pytest.raises(InputError, match=said):
            Engine(path, options)


def test_the_commands_take_one(bard_gguf: Mapping[str, Path], stranger: Path) -> None:
    both = [str(bard_gguf["f16"]), "--draft", str(stranger)]
    said = CliRunner().invoke(ingle, ["run", *both, "--temp", "0", "--max-tokens", "8", "Who art thou?"])
    assert said.exit_code == 0, said.output
    alone = CliRunner().invoke(ingle, ["run", both[0], "--temp", "0", "--max-tokens", "8", "Who art thou?"])
    assert said.stdout == alone.stdout
    shown = CliRunner().invoke(ingle, ["doctor", *both, "--json"])
    assert json.loads(shown.stdout)["draft"]["common_tokens"] == 4096
    assert "4,096 tokens in common" in CliRunner().invoke(ingle, ["doctor", *both]).stdout
    assert "its own speed: ingle bench" in str(CliRunner().invoke(ingle, ["bench", *both]).exception.hint)  # type: ignore[union-attr]
