"""Adapters at run time: loaded beside a model, chosen per request, refused where they do not belong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adapting
import numpy as np
import pytest
from adapting import ADAPTERS, CHECKPOINTS, prompts
from ingle.convert import convert, gguf
from ingle.convert.adapter import convert_adapter
from ingle.convert.errors import BadCheckpoint, BadGGUF, BadRequest, InputError, VerificationFailed
from ingle.convert.ggml import TYPES
from ingle.convert.gguf import TensorPlan
from ingle.runtime import verify_adapter
from ingle.runtime.engine.engine import Engine, EngineLike
from ingle.runtime.llama.adapter import NativeAdapter
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.model import Model
from ingle.runtime.options import AdapterFile, LoadOptions
from ingle.runtime.request import Request, Sampling
from ingle.runtime.verify_adapter import prove_loads

EXACT = LoadOptions(kv_type="f32", flash_attention="off", context_length=128, threads=1)
GREEDY = Sampling(temperature=0)
Home = Callable[[Path, LoadOptions], EngineLike]
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with qwen2.gguf, its adapter, a second one that is half as strong, and llama.gguf."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("qwen2", "llama"):
        convert(CHECKPOINTS / name, folder / f"{name}.gguf", "f32")
    convert_adapter(ADAPTERS / "qwen2", CHECKPOINTS / "qwen2", folder / "trained.gguf")
    pairs = {"model.layers.0.mlp.up_proj": adapting.pair(96, 64)}
    adapting.write(folder / "other", pairs, base_model_name_or_path="org/qwen2")
    convert_adapter(folder / "other", CHECKPOINTS / "qwen2", folder / "other.gguf")
    return folder


@pytest.fixture
def engine(files: Path, home: Home) -> Iterator[EngineLike]:
    adapters = (AdapterFile(str(files / "trained.gguf")), AdapterFile(str(files / "other.gguf"), 0.5))
    engine = home(files / "qwen2.gguf", LoadOptions(**{**_values(EXACT), "adapters": adapters}))
    yield engine
    engine.close()


def _values(options: LoadOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in LoadOptions.__dataclass_fields__}


def likeliest(logits: list[float]) -> tuple[int, float]:
    values = np.array(logits) - max(logits)
    return int(values.argmax()), float(-np.log(np.exp(values).sum()))


def first(engine: EngineLike, tokens: list[int], adapters: tuple[str, ...] | None) -> tuple[int, float]:
    request = Request(tuple(tokens), GREEDY, max_tokens=1, logprobs=1, adapters=adapters)
    (logprob,) = [logprob for delta in engine.submit(request) for logprob in delta.logprobs]
    return logprob.token, logprob.logprob


def test_each_request_is_answered_with_its_own_adapters(engine: EngineLike) -> None:
    adapted = prompts("qwen2")[1]
    plain = json.loads((CHECKPOINTS.parent / "golden" / "qwen2.json").read_text())["prompts"][1]
    assert adapted["tokens"] == plain["tokens"]
    for adapters, wanted in ((("trained",), adapted), ((), plain), (("trained",), adapted), ((), plain)):
        token, logprob = first(engine, plain["tokens"], adapters)
        assert (token, pytest.approx(logprob, abs=TOLERANCE)) == likeliest(wanted["logits"])
    both = first(engine, plain["tokens"], None)
    assert both == pytest.approx(first(engine, plain["tokens"], ("other", "trained")), abs=TOLERANCE)
    assert both != pytest.approx(first(engine, plain["tokens"], ("trained",)), abs=TOLERANCE)


def test_requests_with_different_adapters_run_side_by_side(engine: EngineLike) -> None:
    tokens = tuple(prompts("qwen2")[1]["tokens"])
    requests = [
        Request(tokens, GREEDY, max_tokens=30, ignore_eos=True, adapters=adapters)
        for adapters in ((), ("trained",), ("other",), None)
    ]
    alone = [ids(engine, request) for request in requests]
    assert len({tuple(answer) for answer in alone}) == len(requests), "four sets of adapters, four answers"
    together: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        together[number] = ids(engine, requests[number % len(requests)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3 * len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in sorted(together)] == alone * 3


def ids(engine: EngineLike, request: Request) -> list[int]:
    return [token for delta in engine.submit(request) for token in delta.tokens]


def test_what_one_adapter_computed_is_no_prefix_of_another(engine: EngineLike) -> None:
    tokens = tuple(prompts("qwen2")[1]["tokens"])
    cached = []
    for adapters in ((), ("trained",), (), ("trained",), ("other",)):
        stream = engine.submit(Request(tokens, GREEDY, max_tokens=1, adapters=adapters))
        list(stream)
        cached.append(stream.usage.cached_tokens)
    assert cached == [0, 0, len(tokens) - 1, len(tokens) - 1, 0]


def test_an_unknown_adapter_is_refused_by_name(engine: EngineLike) -> None:
    with pytest.raises(BadRequest, match="no adapter 'pirate'") as caught:
        list(engine.submit(Request("x", adapters=("pirate",))))
    assert caught.value.hint == "loaded: trained, other"
    assert caught.value.param == "adapters"


def test_info_tells_of_adapters_and_of_a_foreign_base(files: Path, tmp_path: Path) -> None:
    file = gguf.read(files / "other.gguf")
    foreign = tmp_path / "foreign.gguf"
    plans = [_plan(name, file.tensor(name)) for name in file.tensors]
    gguf.write(foreign, {**file.metadata, "general.base_model.0.name": "Something Else"}, plans)
    with Model.load(files / "qwen2.gguf", adapters=[AdapterFile(str(foreign), 2.0)], options=EXACT) as model:
        (adapter,) = model.info.adapters
        assert (adapter.name, adapter.scale, adapter.base) == ("foreign", 2.0, "Something Else")
        (warning,) = model.info.warnings
        assert warning.startswith("the adapter foreign was made for Something Else, and this model calls itself Qwen2")
    with Model.load(files / "qwen2.gguf", adapters=[files / "other.gguf"], options=EXACT) as model:
        assert not model.info.warnings


def _plan(name: str, values: np.ndarray) -> TensorPlan:
    return TensorPlan(name, values.shape, TYPES["F32"], lambda: [values])


def test_a_model_speaks_with_the_adapters_it_is_told(files: Path) -> None:
    tokens = prompts("qwen2")[1]["tokens"]
    with Model.load(files / "qwen2.gguf", adapters=[files / "trained.gguf"], options=EXACT) as model:
        answers = [
            [token for delta in one.generate(tokens, sampling=GREEDY, max_tokens=5) for token in delta.tokens]
            for one in (model, model.adapted("trained"), model.adapted())
        ]
    assert answers[0] == answers[1] != answers[2]


def crafted(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: Any) -> Path:
    keys = {"general.type": "adapter", "general.architecture": "qwen2", "adapter.type": "lora"}
    plans = [_plan(name, np.ones(shape, np.float32)) for name, shape in shapes.items()]
    named = {name.replace("__", "."): value for name, value in metadata.items()}
    gguf.write(path, {**keys, "adapter.lora.alpha": 0.0, **named}, plans)
    return path


QUERY = {"blk.0.attn_q.weight.lora_a": (2, 64), "blk.0.attn_q.weight.lora_b": (64, 2)}
EMBEDDING = {"token_embd.weight.lora_a": (384, 2), "token_embd.weight.lora_b": (64, 2)}


@pytest.mark.parametrize(
    ("shapes", "metadata", "names"),
    [
        (QUERY, {"general__architecture": "llama"}, "an adapter for llama models, and .* is a qwen2 model"),
        (QUERY, {"general__type": "model"}, "of type model, not a LoRA adapter"),
        (QUERY, {"adapter__type": "control"}, "not a LoRA adapter"),
        (QUERY, {"adapter__alora__invocation_tokens": np.array([3], np.uint32)}, "aLoRA"),
        (EMBEDDING, {}, "adapts the embedding, which is the head"),
        (
            {name.replace("0", "9"): shape for name, shape in QUERY.items()},
            {},
            "does not fit .* does not exist in base",
        ),
        ({**QUERY, "blk.0.attn_q.weight.lora_b": (63, 2)}, {}, "does not fit .* incorrect shape"),
    ],
)
def test_an_adapter_for_another_model_is_refused(
    shapes: dict[str, tuple[int, ...]], metadata: dict[str, Any], names: str, files: Path, tmp_path: Path
) -> None:
    path = crafted(tmp_path / "a.gguf", shapes, **metadata)
    with pytest.raises(InputError, match=names):
        Engine(files / "qwen2.gguf", LoadOptions(adapters=(AdapterFile(str(path)),)))


def test_two_adapters_of_one_name_and_a_missing_one_are_refused(files: Path, tmp_path: Path) -> None:
    path = AdapterFile(str(crafted(tmp_path / "trained.gguf", QUERY)))
    with pytest.raises(InputError, match="two adapters are called trained"):
        Engine(files / "qwen2.gguf", LoadOptions(adapters=(path, AdapterFile(str(files / "trained.gguf")))))
    with pytest.raises(BadGGUF, match=r"nothing\.gguf"):
        Engine(files / "qwen2.gguf", LoadOptions(adapters=(AdapterFile(str(tmp_path / "nothing.gguf")),)))


def test_pairs_that_llama_cpp_ignores_are_told_of(tmp_path: Path) -> None:
    convert(CHECKPOINTS / "gpt2", tmp_path / "gpt2.gguf", "f32")
    shapes = {"position_embd.weight.lora_a": (2, 64), "position_embd.weight.lora_b": (64, 2)}
    path = crafted(tmp_path / "a.gguf", shapes, general__architecture="gpt2")
    with Model.load(tmp_path / "gpt2.gguf", adapters=[path], options=EXACT) as model:
        assert any("(position_embd.weight, ...): these change nothing" in text for text in model.info.warnings)


# ---- the proof in a child --------------------------------------------------------------------------------------


def test_an_adapter_is_loaded_beside_an_outline_of_its_base(files: Path, tmp_path: Path) -> None:
    adapter = crafted(tmp_path / "a.gguf", QUERY)
    prove_loads(adapter, CHECKPOINTS / "qwen2")
    prove_loads(adapter, files / "qwen2.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize("base", ["checkpoint", "file"])
def test_an_adapter_that_llama_cpp_refuses_is_not_proven(base: str, files: Path, tmp_path: Path) -> None:
    adapter = crafted(tmp_path / "a.gguf", {**QUERY, "blk.0.attn_q.weight.lora_b": (63, 2)})
    place = CHECKPOINTS / "qwen2" if base == "checkpoint" else files / "qwen2.gguf"
    with pytest.raises(VerificationFailed, match="incorrect shape"):
        prove_loads(adapter, place)


def test_a_child_that_dies_is_told_of(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_adapter, "SERVE", "os:abort")
    with pytest.raises(VerificationFailed, match="was ended by SIGABRT"):
        prove_loads(crafted(tmp_path / "a.gguf", QUERY), files / "qwen2.gguf")


def test_the_outline_has_the_tensors_of_the_conversion(files: Path, tmp_path: Path) -> None:
    file = gguf.read(verify_adapter.outline(CHECKPOINTS / "qwen2", tmp_path / "outline.gguf"))
    whole = gguf.read(files / "qwen2.gguf")
    assert {name: info.shape for name, info in file.tensors.items()} == {
        name: info.shape for name, info in whole.tensors.items()
    }
    model = NativeModel(tmp_path / "outline.gguf", repack=False)
    NativeAdapter(model, files / "trained.gguf").close()
    model.close()


def test_a_broken_base_keeps_its_own_error(files: Path, tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"no config\.json"):
        prove_loads(files / "trained.gguf", tmp_path)
