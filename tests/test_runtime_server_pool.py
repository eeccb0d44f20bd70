"""The models in memory: one copy each, the longest idle one given up, a dead one replaced."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_model import FakeCatalog, FakeModel, Script
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.convert.errors import BadRequest, EngineClosed, EngineCrashed, LoadFailed, ModelNotFound, QueueFull
from ingle.runtime.options import LoadOptions
from ingle.runtime.server.catalog import StoreCatalog, prepare
from ingle.runtime.server.pool import Installed, Pool
from ingle.runtime.store.manifest import Entry, KeptFile, Source
from ingle.runtime.store.names import parse
from ingle.runtime.store.store import Store
from served import served


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def loaded_names(catalog: FakeCatalog) -> list[str]:
    return [model.info.name for model in catalog.loads]


def test_fifty_first_requests_load_one_copy() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a", load_s=0.2)
        pool = Pool(catalog, max_models=1)
        leases = await asyncio.gather(*(pool.lease("a") for _ in range(50)))
        assert len(catalog.loads) == 1
        assert {id(lease.model) for lease in leases} == {id(catalog.model)}

    run(main())


def test_the_longest_idle_model_makes_room() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a", "b", "c")
        pool = Pool(catalog, max_models=2)
        for name in ("a", "b", "a", "c"):
            (await pool.lease(name)).release()
        assert loaded_names(catalog) == ["a", "b", "c"]
        assert [model.closed for model in catalog.loads] == [False, True, False]
        assert set(pool.loaded()) == {"a", "c"}

    run(main())


def test_a_model_at_work_is_never_given_up() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a", "b")
        pool = Pool(catalog, max_models=1)
        lease = await pool.lease("a")
        with pytest.raises(QueueFull, match="1 models"):
            await pool.lease("b")
        lease.release()
        lease.release()
        (await pool.lease("b")).release()
        assert [model.closed for model in catalog.loads] == [True, False]

    run(main())


def test_a_failed_load_is_told_to_all_who_wait_and_tried_again() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a", load_s=0.1)
        catalog.fails = LoadFailed("not enough memory")
        pool = Pool(catalog, max_models=1)
        results = await asyncio.gather(*(pool.lease("a") for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [LoadFailed] * 5
        catalog.fails = None
        assert (await pool.lease("a")).model is catalog.model

    run(main())


def test_one_who_stops_waiting_does_not_stop_the_load() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a", "b", load_s=0.3)
        pool = Pool(catalog, max_models=1)
        impatient = asyncio.create_task(pool.lease("a"))
        patient = asyncio.create_task(pool.lease("a"))
        await asyncio.sleep(0.1)
        impatient.cancel()
        (await patient).release()
        assert len(catalog.loads) == 1
        (await pool.lease("b")).release()
        assert catalog.loads[0].closed

    run(main())


def test_a_dead_engine_is_loaded_again() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a")
        pool = Pool(catalog, max_models=1)
        (await pool.lease("a")).release()
        catalog.model.crash()
        assert pool.loaded() == {}
        leases = await asyncio.gather(*(pool.lease("a") for _ in range(5)))
        assert len(catalog.loads) == 2
        assert all(lease.model is catalog.loads[1] for lease in leases)
        assert catalog.loads[0].closed

    run(main())


def test_a_closed_pool_loads_nothing() -> None:
    async def main() -> None:
        catalog = FakeCatalog("a")
        pool = Pool(catalog, max_models=1)
        await pool.lease("a")
        await pool.close()
        assert catalog.model.closed
        with pytest.raises(EngineClosed):
            await pool.lease("a")

    run(main())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=25), st.integers(1, 3))
def test_the_pool_keeps_its_promises(steps: Sequence[tuple[str, bool]], max_models: int) -> None:
    """Whatever is asked and let go: never too many, never two copies, never one closed at work."""

    async def main() -> None:
        catalog = FakeCatalog("a", "b", "c", "d")
        pool = Pool(catalog, max_models=max_models)
        held: list[Any] = []
        for name, let_go in steps:
            try:
                held.append(await pool.lease(name))
            except QueueFull:
                assert len({lease.name for lease in held}) == max_models
            alive = [model.info.name for model in catalog.loads if model.alive]
            assert len(alive) <= max_models
            assert len(set(alive)) == len(alive)
            assert all(lease.model.alive for lease in held)
            if let_go and held:
                held.pop(0).release()

    run(main())


def test_a_crash_costs_its_requests_only() -> None:
    with served(FakeCatalog("fake", script=Script(prefill_s=30))) as server:
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(server.chat().status))
        thread.start()
        while not server.model.works:
            time.sleep(0.01)
        server.catalog.script = Script()
        server.model.crash()
        thread.join()
        assert statuses == [503]
        assert server.chat().status == 200
        assert len(server.catalog.loads) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_finds_the_engine_dead_gets_the_next_one(stream: bool) -> None:
    """Nobody has noticed yet that it died: the request was not taken, so it may be given again, once."""

    def find_dead(model: FakeModel) -> None:
        def chat(*given: Any, **asked: Any) -> Any:
            model.alive = False
            raise EngineCrashed("the engine process was ended by SIGKILL")

        model.chat = chat  # type: ignore[method-assign]

    with served(FakeCatalog("fake")) as server:
        find_dead(server.model)
        assert server.chat(stream=stream).status == 200
        assert len(server.catalog.loads) == 2
        load = server.catalog.load

        def load_dead(installed: Installed) -> FakeModel:
            model = load(installed)
            find_dead(model)
            return model

        server.catalog.load = load_dead  # type: ignore[method-assign]
        find_dead(server.model)
        refused = server.chat(stream=stream)
        assert (refused.status, refused.error["code"]) == (503, "engine_crashed")


def test_a_model_taken_out_of_memory_by_another_comes_back() -> None:
    with served(FakeCatalog("a", "b", "c")) as server:
        for name in ("b", "c", "a", "b", "a"):
            assert server.chat(model=name).status == 200
        assert loaded_names(server.catalog) == ["a", "b", "c", "a", "b"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that holds two models of the hub and one of a folder."""
    store = Store(tmp_path / "home")
    for text, kind in (("org/big:Q4_K_M", "Q4_K_M"), ("org/big:Q8_0", "Q8_0"), (f"{tmp_path}/folder:Q8_0", "Q8_0")):
        name: Any = parse(text)
        folder = store.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{kind}.gguf"
        file.write_bytes(b"GGUF" * 10)
        store.keep(
            name,
            Entry(
                text,
                kind,
                (KeptFile(file, 40, "0" * 64),),
                Source("hub", "org/big"),
                True,
                created="2026-01-01T00:00:00+00:00",
            ),
        )
    return store


def test_the_catalog_lists_models_of_the_hub_but_no_paths(store: Store) -> None:
    catalog = StoreCatalog(store, LoadOptions())
    assert [(model.name, model.size_bytes) for model in catalog.list()] == [
        ("org/big:Q4_K_M", 40),
        ("org/big:Q8_0", 40),
    ]


def test_a_name_without_a_type_is_one_of_the_models_not_a_copy(store: Store) -> None:
    catalog = StoreCatalog(store, LoadOptions())
    assert catalog.find("org/big").name in ("org/big:Q4_K_M", "org/big:Q8_0")
    assert catalog.find("org/big:Q8_0").name == "org/big:Q8_0"


@pytest.mark.parametrize(
    "name", ["", "x", "org/absent", "org/big:Q2_K", "../big", "{folder}", "{file}", "./folder", "~/x", "\0"]
)
def test_the_catalog_finds_no_paths_and_says_what_there_is(store: Store, tmp_path: Path, name: str) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelNotFound) as refusal:
        StoreCatalog(store, LoadOptions()).find(name.format(folder=tmp_path / "folder", file=file))
    assert refusal.value.param == "model"
    assert "org/big:Q8_0" in refusal.value.hint


def test_a_file_that_was_named_when_starting_has_a_short_name_and_its_own(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    file.write_bytes(b"GGUF")
    catalog = StoreCatalog(store, LoadOptions(), prepare([str(file), str(file)], store))
    assert catalog.find("my model") == catalog.find(str(file))
    assert catalog.find("my model").target == str(file)
    assert [model.name for model in catalog.list()] == ["my model", "org/big:Q4_K_M", "org/big:Q8_0"]


def test_two_files_of_one_name_are_refused(store: Store, tmp_path: Path) -> None:
    files = [tmp_path / folder / "same.gguf" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(b"GGUF")
    with pytest.raises(BadRequest, match="both be called same"):
        prepare(map(str, files), store)


def test_nothing_is_fetched_that_is_not_here(store: Store) -> None:
    with pytest.raises(ModelNotFound):
        prepare(["./nowhere.gguf"], store)
