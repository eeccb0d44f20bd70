"""The store: what is kept, found, checked and removed, by the library and by the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faketools import Workmen, checkpoint, tiny_gguf, write
from ingle.convert.errors import (
    BadCheckpoint,
    ChecksumMismatch,
    IngleError,
    ModelNotFound,
    StorageError,
    StoreBusy,
    VerificationFailed,
)
from ingle.convert.files import PARTIAL_SUFFIX, RESUMABLE
from ingle.convert.progress import Progress
from ingle.runtime.store import build, manifest
from ingle.runtime.store.cache import Cache
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.store.lock import locked
from ingle.runtime.store.manifest import Entry, KeptFile, Source
from ingle.runtime.store.names import FolderName, HubName, parse
from ingle.runtime.store.repository import RemoteFile, Repository
from ingle.runtime.store.selection import preferred
from ingle.runtime.store.stages import Prove, Tools
from ingle.runtime.store.store import Store

COMMIT = "c" * 40


@pytest.fixture
def store(ingle_home: Path) -> Store:
    return Store()


@pytest.fixture
def workmen() -> Workmen:
    return Workmen()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny model", checkpoint())


def obtain(name: str | Path, store: Store, workmen: Workmen, *, update: bool = False) -> Entry:
    return build.obtain(str(name), store, tools=workmen.tools, update=update)


# Checkpoint folders


def test_a_folder_is_built_once(store: Store, workmen: Workmen, folder: Path) -> None:
    entry = obtain(folder, store, workmen)
    assert (entry.name, entry.type, entry.built) == (f"{folder}:Q8_0", "Q8_0", True)
    assert entry.path.name == f"tiny-model-Q8_0-{entry.source.version[:8]}.gguf"
    assert (
        obtain(folder, store, workmen) == obtain(f"{folder}:Q8_0", store, workmen) == store.find(str(folder)) == entry
    )
    assert workmen.done == ["quantize Q8_0", "prove"]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text("{}"),
        lambda folder: (folder / "tokenizer.json").write_text("{}" * 11),
        lambda folder: (folder / "chat_template.jinja").write_text("new"),
        lambda folder: os.utime(folder / "model.safetensors", (1, 1)),
        lambda folder: (folder / "model.safetensors").write_bytes(checkpoint(5)["model.safetensors"]),
    ],
)
def test_a_changed_folder_is_built_again(
    store: Store, workmen: Workmen, folder: Path, change: Callable[[Path], object]
) -> None:
    first = obtain(folder, store, workmen)
    change(folder)
    with pytest.raises(ModelNotFound):
        store.find(str(folder))
    second = obtain(folder, store, workmen)
    assert second.source.version != first.source.version
    assert store.list() == (second,)
    assert not first.path.exists()


def test_a_file_that_conversion_does_not_read_changes_nothing(store: Store, workmen: Workmen, folder: Path) -> None:
    entry = obtain(folder, store, workmen)
    (folder / "notes.txt").write_text("hello")
    assert store.find(str(folder)) == entry


def test_a_model_outlives_its_folder(store: Store, workmen: Workmen, folder: Path) -> None:
    entry = obtain(folder, store, workmen)
    folder.rename(folder.with_name("elsewhere"))
    assert store.find(str(folder)) == entry
    with pytest.raises(ModelNotFound, match="no folder"):
        obtain(f"{folder}:F16", store, workmen)


def test_a_folder_without_config_is_refused(store: Store, workmen: Workmen, folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"no config\.json"):
        obtain(folder, store, workmen)


def test_a_failed_proof_keeps_nothing(store: Store, workmen: Workmen, folder: Path) -> None:
    def fail(*_: object) -> Mapping[str, Any]:
        raise VerificationFailed("one string differs")

    tools = replace(workmen.tools, prove=fail)
    for name in (folder, f"{folder}:Q4_K_M"):
        with pytest.raises(VerificationFailed):
            build.obtain(str(name), store, tools=tools)
    assert not list(store.home.rglob("*.gguf"))
    assert store.list() == ()


def test_a_conversion_that_was_not_proven_is_not_kept(store: Store, workmen: Workmen, folder: Path) -> None:
    def skip(_: Checkpoint, out: Path, *__: object) -> None:
        out.write_bytes(b"GGUF")

    with pytest.raises(IngleError, match="without a proof"):
        build.obtain(str(folder), store, tools=Tools(skip, workmen.prove, skip))
    assert store.list() == ()


def test_what_a_killed_build_left_is_kept_for_the_next_and_goes_with_the_model(
    store: Store, workmen: Workmen, folder: Path
) -> None:
    left: list[Path] = []

    def leave(_: Checkpoint, out: Path, *__: object) -> None:
        for kind in (f"{'0' * 32}{RESUMABLE}", "5f5f"):
            left.append(out.with_name(f".{out.name}.{kind}{PARTIAL_SUFFIX}"))
            left[-1].write_bytes(bytes(100))
        raise StorageError("broken")

    def look(checkpoint: Checkpoint, out: Path, kind: str, prove: Prove, progress: Progress, _: object) -> None:
        assert [path.exists() for path in left] == [True, False]
        workmen.quantize(checkpoint, out, kind, prove, progress, None)

    name = f"{folder}:Q4_K_M"
    with pytest.raises(StorageError):
        build.obtain(name, store, tools=replace(workmen.tools, quantize=leave))
    build.obtain(name, store, tools=replace(workmen.tools, quantize=look))
    assert [path.exists() for path in left] == [False, False]
    left.clear()
    with pytest.raises(StorageError):
        build.obtain(f"{folder}:Q6_K", store, tools=replace(workmen.tools, quantize=leave))
    assert store.remove(f"{folder}:Q6_K").freed_bytes == 200
    assert store.find(name)


# Files that were named by their path


def test_a_gguf_file_is_used_where_it_is(store: Store, workmen: Workmen, tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "my.gguf")
    entry = obtain(path, store, workmen)
    assert (entry.path, entry.size_bytes, entry.sha256) == (path, path.stat().st_size, "")
    assert not store.home.exists() or not list(store.home.iterdir())
    with pytest.raises(ModelNotFound, match="not kept"):
        store.remove(str(path))
    assert path.exists()
    with pytest.raises(ModelNotFound, match="no checksum"):
        store.verify(str(path))
    with pytest.raises(ModelNotFound, match="no file"):
        store.find(str(tmp_path / "absent.gguf"))


# Finding


def test_without_a_type_the_preferred_one_is_found(store: Store, workmen: Workmen, folder: Path) -> None:
    for kind in ("F16", "Q6_K", "Q8_0"):
        obtain(f"{folder}:{kind}", store, workmen)
    assert store.find(str(folder)).type == "Q8_0"
    assert preferred({"Q6_K", "F32", "Q4_K_M"}) == "Q4_K_M"
    assert preferred({"ZZ", "AA"}) == "AA"


def test_what_is_not_here_is_told_how_to_get(store: Store) -> None:
    with pytest.raises(ModelNotFound) as missing:
        store.find("org/absent:Q8_0")
    assert missing.value.hint == "run: ingle pull org/absent:Q8_0"


def test_a_file_that_is_gone_or_cut_is_noticed(store: Store, workmen: Workmen, folder: Path) -> None:
    entry = obtain(folder, store, workmen)
    with entry.path.open("ab") as file:
        file.truncate(entry.size_bytes - 1)
    with pytest.raises(ChecksumMismatch, match=f"{entry.size_bytes - 1:,} bytes"):
        store.find(str(folder))
    entry.path.unlink()
    with pytest.raises(ModelNotFound, match="is gone"):
        store.find(str(folder))
    assert obtain(folder, store, workmen) == replace(entry, created=store.find(str(folder)).created)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"format": 2}', '{"format": 1}', '{"format": 1, "files": [], "source": {}}']
)
def test_a_broken_manifest_is_named(store: Store, workmen: Workmen, folder: Path, text: str) -> None:
    entry = obtain(folder, store, workmen)
    path = entry.path.with_name("Q8_0.json")
    path.write_text(text)
    with pytest.raises(StorageError, match=r"Q8_0\.json"):
        store.list()
    with pytest.raises(StorageError, match=r"Q8_0\.json"):
        store.find(str(folder))


def test_a_store_can_be_moved(store: Store, workmen: Workmen, folder: Path, tmp_path: Path) -> None:
    entry = obtain(folder, store, workmen)
    moved = Store(store.home.rename(tmp_path / "moved"))
    assert moved.verify(str(folder)).path == moved.home / entry.path.relative_to(store.home)


# Verifying


@pytest.mark.parametrize("at", [0, 1000, -1])
def test_one_flipped_bit_is_found(store: Store, workmen: Workmen, folder: Path, at: int) -> None:
    entry = obtain(folder, store, workmen)
    assert store.verify(str(folder)) == entry
    content = bytearray(entry.path.read_bytes())
    content[at] ^= 4
    entry.path.write_bytes(content)
    with pytest.raises(ChecksumMismatch, match=entry.path.name):
        store.verify(str(folder))


# Removing


def test_removing_frees_what_was_built(store: Store, workmen: Workmen, folder: Path) -> None:
    first, second = (obtain(f"{folder}:{kind}", store, workmen) for kind in ("Q8_0", "F16"))
    removed = store.remove(f"{folder}:F16")
    assert removed.freed_bytes == second.size_bytes
    assert removed.names == (second.name,)
    assert store.list() == (first,)
    assert store.remove(str(folder)).freed_bytes == first.size_bytes
    assert not [path for path in store.home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert (folder / "model.safetensors").exists()
    with pytest.raises(ModelNotFound):
        store.remove(str(folder))


def test_removing_waits_for_no_builder(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingle.runtime.store import store as module

    monkeypatch.setattr(module, "REMOVE_WAIT_S", 0.05)
    with (
        store.locked(FolderName(folder)),
        pytest.raises(StoreBusy, match=f"pid {os.getpid()}"),
    ):
        store.remove(str(folder))


def cached_entry(store: Store, cache: Cache, name: str = "org/tiny") -> Entry:
    """A GGUF in the Hugging Face cache, and its manifest."""
    content = b"GGUF of somebody else"
    file = RemoteFile("tiny-Q8_0.gguf", len(content), "a" * 64)
    repository = Repository(name, COMMIT, {file.name: file})
    blob = cache.blob(name, file)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    path = cache.link(repository, file)
    wanted = parse(name)
    assert isinstance(wanted, HubName)
    kept = KeptFile(path, len(content), file.etag)
    with store.locked(wanted):
        return store.keep(wanted, Entry(f"{name}:Q8_0", "Q8_0", (kept,), Source("hub", name, COMMIT)))


def test_a_file_of_the_cache_is_forgotten_not_deleted(store: Store, tmp_path: Path) -> None:
    entry = cached_entry(store, Cache(tmp_path / "hub"))
    removed = store.remove("org/tiny")
    assert (removed.freed_bytes, removed.left) == (0, (entry.path,))
    assert entry.path.exists()
    assert store.list() == ()


def test_a_file_of_the_cache_is_deleted_when_asked(store: Store, tmp_path: Path) -> None:
    entry = cached_entry(store, Cache(tmp_path / "hub"))
    blob = entry.path.resolve()
    assert store.remove("org/tiny", from_cache=True).freed_bytes == entry.size_bytes
    assert not entry.path.is_symlink()
    assert not blob.exists()


def test_a_blob_that_another_snapshot_needs_stays(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "hub")
    entry = cached_entry(store, cache)
    file = RemoteFile("tiny-Q8_0.gguf", entry.size_bytes, "a" * 64)
    other = cache.link(Repository("org/tiny", "d" * 40, {file.name: file}), file)
    assert store.remove("org/tiny", from_cache=True).freed_bytes == 0
    assert other.exists()


def test_a_manifest_can_not_make_us_delete_foreign_files(store: Store, workmen: Workmen, folder: Path) -> None:
    entry = obtain(folder, store, workmen)
    victim = folder / "model.safetensors"
    path = entry.path.with_name("Q8_0.json")
    manifest.write(path, replace(entry, files=(KeptFile(victim, victim.stat().st_size, ""),)))
    store.remove(str(folder))
    assert victim.exists()


# Locks


def test_a_lock_is_held_against_other_threads_too(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    said: list[str] = []
    with locked(path, "it", wait_s=1), pytest.raises(StoreBusy):  # noqa: SIM117
        with locked(path, "it", wait_s=0.15, progress=lambda stage, *_: said.append(stage)):
            raise AssertionError("held twice")
    assert said
    with locked(path, "it", wait_s=0):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), locked(tmp_path / "x.lock", "it", wait_s=0):
        raise AssertionError("followed the link")
    assert not (tmp_path / "elsewhere").exists()
