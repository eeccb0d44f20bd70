"""Without a network, without space, and with company: what pulling does then."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import faketools
import pytest
from fakehub import FakeHub, sha1
from faketools import checkpoint, sharded
from ingle.convert.errors import (
    BadCheckpoint,
    DiskFull,
    HubError,
    StorageError,
)
from ingle.runtime.store import fetch
from ingle.runtime.store.manifest import Entry
from pulling import BLOCKED, NAME, OBTAIN, Puller, puller, run_python


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        yield pull


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


# Offline


def test_offline_what_is_here_needs_no_socket(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    pull()
    environment = {
        "INGLE_HOME": str(pull.store.home),
        "HF_HUB_CACHE": str(pull.cache.root),
        "HF_ENDPOINT": hub.endpoint,
    }
    hub.seen.clear()
    printed = run_python(BLOCKED + OBTAIN, environment)
    assert printed.split() == ["org/tiny:Q8_0"]
    assert not hub.seen


def test_offline_a_cached_checkpoint_is_built_without_a_socket(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    pull()
    environment = {
        "INGLE_HOME": str(tmp_path / "other"),
        "HF_HUB_CACHE": str(pull.cache.root),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "1",
    }
    assert run_python(BLOCKED + OBTAIN, environment).split() == ["org/tiny:Q8_0"]


def test_the_check_for_sockets_sees_one(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    environment = {"INGLE_HOME": str(tmp_path / "none"), "HF_ENDPOINT": hub.endpoint}
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_python(BLOCKED + OBTAIN, environment)
    assert "a socket was asked for" in failed.value.stderr


def test_offline_a_pull_is_content_with_what_is_here(
    pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, checkpoint())
    entry = pull()
    shutil.rmtree(pull.cache.root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull(update=True, offline=True) == entry


def test_offline_what_is_not_here_is_said_so(pull: Puller, hub: FakeHub) -> None:
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        pull(offline=True)


def test_offline_a_part_of_a_checkpoint_is_not_enough(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, sharded())
    pull()
    (next(pull.cache.folder(NAME).glob("snapshots/*")) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match="00002-of-00002"):
        pull("org/tiny:F16", offline=True)


# Space


def test_too_little_space_is_said_before_anything_is_fetched(
    pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, checkpoint())
    real = shutil.disk_usage(pull.cache.root.parent.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=300_000))
    with pytest.raises(DiskFull, match="300,000 free"):
        pull()
    assert not hub.bodies("cdn")


def test_a_disk_that_fills_up_keeps_what_came(pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, checkpoint())
    real_append = fetch.Partial.append

    def full(partial: fetch.Partial, chunk: bytes) -> None:
        room = 60_000 - partial.size_bytes
        real_append(partial, chunk[:room])
        if len(chunk) > room:
            raise DiskFull("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(fetch.Partial, "append", full)
        with pytest.raises(DiskFull):
            pull()
    hub.seen.clear()
    pull()
    assert [seen.range for seen in hub.bodies("cdn") if seen.range] == ["bytes=60000-"]


@pytest.mark.parametrize("limit", [1_000, 200_050])
def test_a_real_limit_on_file_size_is_a_full_disk(pull: Puller, hub: FakeHub, limit: int) -> None:
    hub.add(NAME, checkpoint())
    environment = {
        "INGLE_HOME": str(pull.store.home),
        "HF_HUB_CACHE": str(pull.cache.root),
        "HF_ENDPOINT": hub.endpoint,
    }
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from ingle.convert.errors import DiskFull
try:
    {OBTAIN.strip().replace(chr(10), chr(10) + "    ")}
except DiskFull as error:
    print("full:", error.message)
"""
    assert run_python(code, environment).startswith("full: no space left")
    assert pull.store.list() == ()
    assert pull().path.exists()


def test_a_store_that_can_not_be_written_is_said_so(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    (tmp_path / "disk").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="disk"):
        pull()


# Two at once


def test_two_at_once_fetch_and_build_once(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="cdn", bytes_per_s=1_000_000)
    entries: list[Entry] = []
    threads = [threading.Thread(target=lambda: entries.append(pull())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(entries) == 2
    assert entries[0] == entries[1]
    assert len(hub.bodies("cdn")) == 1
    assert pull.workmen.done == ["quantize Q8_0", "prove"]
    assert any(stage.startswith("waiting") for stage, _, _ in pull.progress)


def test_files_and_folders_of_the_store_are_for_their_owner_only(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    old = os.umask(0)
    try:
        pull("org/tiny:Q4_K_M")
    finally:
        os.umask(old)
    paths = [pull.store.home, *pull.store.home.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}


def test_the_fake_hub_speaks_as_the_hub_client_expects(hub: FakeHub, tmp_path: Path) -> None:
    files = hub.add(NAME, checkpoint()).files
    code = "import huggingface_hub as h; print(h.snapshot_download('org/tiny', max_workers=1))"
    folder = run_python(code, {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": hub.endpoint}).strip()
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == files
    code = """
import huggingface_hub as h
print(*[file.blob_id for file in h.HfApi().model_info('org/tiny', files_metadata=True).siblings])
"""
    printed = run_python(code, {"HF_ENDPOINT": hub.endpoint}).split()
    assert printed == [sha1(content) for content in files.values()]


def test_the_stand_ins_are_a_checkpoint_that_our_reader_accepts(tmp_path: Path) -> None:
    from ingle.convert.checkpoint import read_tensors

    assert sum(t.nbytes for t in read_tensors(faketools.write(tmp_path, sharded())).values()) == 200_000
