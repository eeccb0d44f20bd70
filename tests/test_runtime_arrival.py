"""Weights that are converted while others of them are still on their way."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import altered
import faketools
import pytest
from fakehub import FakeHub, sha256
from ingle.convert import convert, gguf
from ingle.convert.errors import ChecksumMismatch, HubError
from ingle.convert.progress import silent
from ingle.runtime.store.arrival import checkpoint_at
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.store.download import Library
from ingle.runtime.store.hub import Hub
from pulling import NAME, Puller, puller

FOLDER = altered.CHECKPOINTS / "smollm2"
SHARDS = [f"model-{number:05}-of-00004.safetensors" for number in range(1, 5)]


@pytest.fixture
def pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Puller]:
    """The temporary folder must be empty in the end, and the downloading thread gone."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with puller(tmp_path / "disk") as pull:
        pull.hub.add(NAME, {path.name: path.read_bytes() for path in FOLDER.iterdir()})
        yield pull
    assert not list(temporary.iterdir())
    assert "ingle-download" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


def library(pull: Puller) -> Library:
    return Library(pull.cache, Hub(pull.hub.endpoint, None, first_wait_s=0.001))


def content(hub: FakeHub, shard: str) -> bytes:
    return hub.repos[NAME].files[shard]


def here(pull: Puller, hub: FakeHub) -> list[str]:
    return [shard for shard in SHARDS if pull.blob(content(hub, shard)).exists()]


def arrived(checkpoint: Checkpoint, shard: str) -> bytes:
    assert checkpoint.arrive
    return checkpoint.arrive(checkpoint.folder / shard)[:]


def test_what_has_arrived_can_be_read_while_the_rest_is_on_its_way(pull: Puller, hub: FakeHub) -> None:
    hub.fault(where=f"cdn/{NAME}/x/{SHARDS[2]}", bytes_per_s=50_000)
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        assert here(pull, hub) == []
        assert arrived(checkpoint, SHARDS[0]) == content(hub, SHARDS[0])
        assert SHARDS[3] not in here(pull, hub)
        assert arrived(checkpoint, SHARDS[3]) == content(hub, SHARDS[3])
        assert checkpoint.complete() == pull.cache.folder(NAME) / "snapshots" / hub.repos[NAME].commit
    assert here(pull, hub) == SHARDS


def test_a_file_is_the_same_whether_its_checkpoint_was_here_or_arriving(pull: Puller, tmp_path: Path) -> None:
    convert(FOLDER, tmp_path / "tiny.gguf", "q8_0")
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        assert checkpoint.arrive
        convert(checkpoint.folder, tmp_path / "arriving.gguf", "q8_0", arrive=checkpoint.arrive)
        there = convert(checkpoint.complete(), tmp_path / "arrived.gguf", "q8_0")
    arriving = (tmp_path / "arriving.gguf").read_bytes()
    assert arriving == there.path.read_bytes()
    assert arriving[-1_000:] == (tmp_path / "tiny.gguf").read_bytes()[-1_000:]  # the folder's name is in the metadata


def test_what_lies_in_the_last_shard_is_written_last(tmp_path: Path) -> None:
    """Else nothing could be written before all has arrived."""
    for family in ("smollm2", "llama", "gpt2"):
        names = list(gguf.read(convert(altered.CHECKPOINTS / family, tmp_path / "x.gguf").path).tensors)
        layers = [index for index, name in enumerate(names) if name.startswith("blk.")]
        ends = [index for index, name in enumerate(names) if name.startswith("output")]
        assert max(layers) < min(ends)


def test_a_header_that_was_another_before_is_refused(pull: Puller, hub: FakeHub) -> None:
    """What was planned on must be what has the checksum."""
    data = content(hub, SHARDS[1])
    hub.fault(where=f"cdn/{NAME}/x/{SHARDS[1]}", flip_at=data.index(b"model.layers") + 6, times=2)
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        arrived(checkpoint, SHARDS[0])
        with pytest.raises(ChecksumMismatch, match=f"header of {SHARDS[1]}"):
            arrived(checkpoint, SHARDS[1])


@pytest.mark.parametrize("fault", [{"status": 403}, {"flip_at": -1}])
def test_a_failure_is_raised_where_the_weights_are_waited_for(
    pull: Puller, hub: FakeHub, tmp_path: Path, fault: dict[str, int]
) -> None:
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        hub.fault(where=f"cdn/{NAME}/x/{SHARDS[1]}", **fault)
        with pytest.raises((HubError, ChecksumMismatch)):
            convert(checkpoint.folder, tmp_path / "out" / "x.gguf", arrive=checkpoint.arrive)
        with pytest.raises((HubError, ChecksumMismatch)):
            checkpoint.complete()
    assert not list((tmp_path / "out").iterdir())
    assert here(pull, hub) == SHARDS[:1]


def test_leaving_stops_the_download_and_the_next_one_goes_on(pull: Puller, hub: FakeHub) -> None:
    files = faketools.sharded()
    first, second = sorted(name for name in files if name.endswith(".safetensors"))
    files[second] = faketools.safetensors(500_000, "b")
    hub.add(NAME, files)
    slow = hub.fault(where=f"cdn/{NAME}/x/{second}", bytes_per_s=100_000)
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        arrived(checkpoint, first)
    assert hub.served[second] < 500_000
    slow.times = 0
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        checkpoint.complete()
    assert pull.blob(files[second]).exists()
    assert hub.served[second] < 1_600_000, "it began anew"


def test_what_is_here_in_the_version_asked_for_is_not_fetched_again(pull: Puller, hub: FakeHub) -> None:
    entry = pull()
    for shard in SHARDS:
        pull.blob(content(hub, shard)).unlink()
    hub.seen.clear()
    assert pull(update=True) == entry
    assert all(seen.range for seen in hub.bodies(".safetensors"))


def test_torch_weights_are_fetched_whole(pull: Puller, hub: FakeHub) -> None:
    small = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix != ".safetensors"}
    del small["model.safetensors.index.json"]
    weights = bytes(5000)
    hub.add("org/torch", {**small, "pytorch_model.bin": weights})
    with checkpoint_at("org/torch", silent, library(pull)) as checkpoint:
        assert checkpoint.arrive is None
        assert (checkpoint.folder / "pytorch_model.bin").read_bytes() == weights
    assert (pull.cache.folder("org/torch") / "blobs" / sha256(weights)).exists()
