"""Work for a task ends when nobody waits for it any more: between two steps and in the middle of one, and only that."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import tasked
from fake_model import FakeCatalog
from ingle.convert import convert
from ingle.convert.errors import Cancelled, EngineCrashed
from ingle.runtime.llama.pairs import PairsContext
from ingle.runtime.llama.states import StatesContext
from ingle.runtime.server.pool import Installed
from ingle.runtime.tasks.model import TaskModel
from ingle.runtime.tasks.process import TaskProcess
from ingle.runtime.tasks.text import BATCH_CHARACTERS, TextTokenizer
from ingle.runtime.tasks.work import Work
from served import Served, served
from test_runtime_seq2seq import recipe as t5_recipe

LONG = "to be or not to be, that is the question " * 12
MANY = [LONG] * 200
STOP_S = 0.25
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    recipes = {"reads": tasked.recipe("bert_states"), "writes": t5_recipe("t5")}
    for name, recipe in recipes.items():
        tasked.write(folder / name, recipe)
    return {name: convert(folder / name, folder / f"{name}.gguf", "f32").path for name in recipes}


def embed(model: Any, texts: list[str], **settings: Any) -> Any:
    return model.run("embeddings", texts, {"pooling": "mean"}, **settings)


@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_a_step_ends_in_its_middle(kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is set once the step is ours, before the native call: that one sees it at its first node."""
    context, method, task = {
        "reads": (StatesContext, "states", ("embeddings", ["one", "two"], {"pooling": "mean"})),
        "writes": (PairsContext, "decode", ("text2text-generation", ["one", "two"], {"max_new_tokens": 30})),
    }[kind]
    with TaskModel(files[kind], threads=1) as model:
        whole = model.run(*task)
        work, compute, calls = Work(), getattr(context, method), []

        def given_up(self: Any, *arguments: Any) -> Any:
            calls.append(method)
            model.give_up(work)
            return compute(self, *arguments)

        monkeypatch.setattr(context, method, given_up)
        with pytest.raises(Cancelled):
            model.run(*task, progress=work)
        monkeypatch.undo()
        assert calls == [method]  # not one step more
        assert model.run(*task) == whole


def test_reading_into_tokens_ends_between_two_batches(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskModel(files["reads"], threads=1) as model:
        work, encode, calls = Work(), TextTokenizer._encode_batch, []

        def given_up(self: TextTokenizer, texts: Any, length: Any) -> Any:
            calls.append(len(texts))
            model.give_up(work)
            return encode(self, texts, length)

        monkeypatch.setattr(TextTokenizer, "_encode_batch", given_up)
        with pytest.raises(Cancelled):
            embed(model, MANY, progress=work)
        assert len(calls) == 1 and sum(map(len, MANY[: calls[0] - 1])) < BATCH_CHARACTERS


def test_what_waits_for_its_turn_never_gets_one(files: dict[str, Path]) -> None:
    with TaskModel(files["reads"], threads=1) as model:
        work = Work()
        model.give_up(work)
        with pytest.raises(Cancelled):
            embed(model, ["one"], progress=work)
        assert embed(model, ["one"], progress=Work()) == embed(model, ["one"])


def test_who_gives_up_disturbs_nobody(files: dict[str, Path]) -> None:
    process = TaskProcess(files["reads"], threads=1)
    try:
        alone = embed(process, [LONG])
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                leaver = process.begin("embeddings", MANY, {"pooling": "mean"})
                others = [pool.submit(embed, process, [LONG]) for _ in range(4)]
                time.sleep(0.05)
                leaver.give_up()
                assert [other.result(PATIENCE_S) for other in others] == [alone] * 4
                with pytest.raises(Cancelled):
                    leaver.result()
    finally:
        process.close()


class Tasks(FakeCatalog):
    def __init__(self, path: Path) -> None:
        super().__init__("tasks")
        self.path = path
        self.processes: list[TaskProcess] = []

    def load(self, installed: Installed) -> Any:
        self.processes.append(TaskProcess(self.path, threads=1))
        return self.processes[-1]


@pytest.fixture
def server(files: dict[str, Path]) -> Iterator[Served]:
    with served(Tasks(files["reads"])) as running:
        yield running


def abandoned(server: Served, after_s: float) -> float:
    """A client asks for much, and leaves. Seconds until the child's processor time stood still."""
    catalog = server.catalog
    assert isinstance(catalog, Tasks)
    child = psutil.Process(catalog.processes[-1]._process.pid)
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    body = json.dumps({"input": MANY}).encode()
    before = busy(child)
    link.request("POST", "/v1/tasks/feature-extraction", body, {"Content-Type": "application/json"})
    end = time.monotonic() + PATIENCE_S
    while busy(child) == before and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(after_s)
    link.close()
    left, last, used = time.monotonic(), time.monotonic(), busy(child)
    while time.monotonic() < last + STOP_S and time.monotonic() < left + PATIENCE_S:
        time.sleep(0.01)
        if busy(child) > used:
            last, used = time.monotonic(), busy(child)
    return last - left


def busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def test_a_client_that_leaves_stops_the_encoder(server: Served) -> None:
    ask = {"input": [LONG], "parameters": {"pooling": "mean"}}
    before = server.ask("POST", "/v1/tasks/embeddings", ask).json
    stops = [abandoned(server, after_s) for after_s in (0.2, 0.4, 0.6)]
    assert max(stops) < STOP_S, stops
    assert server.ask("POST", "/v1/tasks/embeddings", ask).json == before


def test_a_crash_ends_what_is_being_done_and_the_next_request_has_a_new_child(server: Served) -> None:
    catalog = server.catalog
    assert isinstance(catalog, Tasks)
    ask = {"input": [LONG], "parameters": {"pooling": "mean"}}
    before = server.ask("POST", "/v1/tasks/embeddings", ask).json
    killer = threading.Timer(0.1, catalog.processes[-1]._process.kill)
    killer.start()
    broken = server.ask("POST", "/v1/tasks/feature-extraction", {"input": MANY})
    killer.join()
    assert (broken.status, broken.error["code"]) == (EngineCrashed.status, EngineCrashed.code)
    assert server.ask("POST", "/v1/tasks/embeddings", ask).json == before
    assert len(catalog.processes) == 2
