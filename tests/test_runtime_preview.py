"""Judging a checkpoint of the hub without its weights: the same verdicts, and of the weights not a byte."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import altered
import faketools
import pytest
from click.testing import CliRunner, Result
from fakehub import FakeHub, sha256
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert import check, safetensors
from ingle.convert.errors import BadCheckpoint, BadName, HubError
from ingle.convert.progress import silent
from ingle.convert.report import Item
from ingle.runtime.cli.convert import convert_command
from ingle.runtime.store import preview
from ingle.runtime.store.arrival import checkpoint_at
from ingle.runtime.store.download import Library
from ingle.runtime.store.fetch import Body, Patience, read_span
from ingle.runtime.store.hub import Hub
from ingle.runtime.store.preview import checkpoint_preview
from pulling import NAME, WEIGHTS, Puller, puller

SHARDED = "smollm2"


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        yield pull


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary folders: every test must leave it empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def header_bytes(safetensors: bytes) -> int:
    return 8 + int.from_bytes(safetensors[:8], "little")


def library(pull: Puller, *, offline: bool = False) -> Library:
    return Library(pull.cache, None if offline else Hub(pull.hub.endpoint, pull.token, first_wait_s=0.001))


def judged(pull: Puller, *, offline: bool = False) -> list[Item]:
    """The verdicts on the preview, its place left out of their texts."""
    with checkpoint_preview(NAME, library=library(pull, offline=offline)) as folder:
        return without(folder, check(folder).items)


def downloaded(pull: Puller) -> list[Item]:
    with checkpoint_at(NAME, silent, library(pull)) as checkpoint:
        folder = checkpoint.complete()
    return without(folder, check(folder).items)


def without(folder: Path, items: tuple[Item, ...]) -> list[Item]:
    return [Item(item.name, item.verdict, item.detail.replace(str(folder), "."), item.hint) for item in items]


def weights_of(hub: FakeHub) -> dict[str, bytes]:
    return {name: content for name, content in hub.repos[NAME].files.items() if name.endswith(".safetensors")}


# What is served, and what is said


@pytest.mark.parametrize("name", ["llama", SHARDED])
def test_headers_are_all_that_is_fetched_and_the_verdicts_are_those_of_the_whole(
    pull: Puller, hub: FakeHub, name: str
) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / name))
    verdicts = judged(pull)
    weights = weights_of(hub)
    assert {shard: hub.served[shard] for shard in weights} == {
        shard: header_bytes(content) for shard, content in weights.items()
    }
    assert "fail" not in {item.verdict for item in verdicts}
    assert verdicts == downloaded(pull)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"1234567",
        b"\0" * 8,
        b"\xff" * 5000,
        (5000).to_bytes(8, "little") + b"{" * 4999,
        (5000).to_bytes(8, "little") + b"{" * 5000,
        faketools.safetensors(3000)[:-1],
        faketools.safetensors(3000) + b"?",
    ],
    ids=["empty", "short", "none", "huge", "beyond-end", "no-json", "cut", "longer"],
)
def test_broken_weights_are_judged_as_if_they_were_here(pull: Puller, hub: FakeHub, weights: bytes) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama") | {WEIGHTS: weights})
    verdicts = judged(pull)
    assert "fail" in {item.verdict for item in verdicts}
    is_possible = header_bytes(weights) <= len(weights)
    assert hub.served[WEIGHTS] == (header_bytes(weights) if is_possible else min(8, len(weights)))
    assert verdicts == downloaded(pull)


def test_a_header_beyond_the_limit_of_the_reader_is_not_fetched(
    pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    limit = header_bytes(weights_of(hub)[WEIGHTS]) - 8
    monkeypatch.setattr(safetensors, "MAX_HEADER_BYTES", limit - 1)
    assert any(f"its header claims {limit:,} bytes" in item.detail for item in judged(pull))
    assert hub.served[WEIGHTS] == 8
    monkeypatch.setattr(safetensors, "MAX_HEADER_BYTES", limit)
    assert "fail" not in {item.verdict for item in judged(pull)}


def test_a_server_without_ranges_is_left_after_the_header(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    hub.fault(where="cdn", ignore_range=True, bytes_per_s=200_000)
    verdicts = judged(pull)
    assert 0 < hub.served[WEIGHTS] < len(weights_of(hub)[WEIGHTS]) / 2
    hub.faults.clear()
    assert verdicts == downloaded(pull)


def test_a_broken_connection_is_taken_up_again(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    hub.fault(where="cdn", cut_at=5, times=2)
    hub.fault(where="cdn", status=503, times=1)
    assert judged(pull) == downloaded(pull)


def test_a_connection_that_never_holds_is_given_up(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    hub.fault(where="cdn", cut_at=0)
    with pytest.raises(HubError, match=r"no connection|ended at byte 0"):
        judged(pull)


def test_the_preview_is_as_large_as_the_checkpoint_and_takes_no_space(
    pull: Puller, hub: FakeHub, temporary: Path
) -> None:
    hub.add(NAME, faketools.checkpoint(5_000_000))
    with checkpoint_preview(NAME, library=library(pull)) as folder:
        assert folder.is_relative_to(temporary)
        found = (folder / WEIGHTS).stat()
    assert found.st_size == len(weights_of(hub)[WEIGHTS])
    assert found.st_blocks * 512 < 100_000


# The cache


def test_weights_that_are_here_are_not_asked_for(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / SHARDED))
    whole = downloaded(pull)
    first, *others = sorted(weights_of(hub))
    pull.blob(weights_of(hub)[first]).unlink()
    hub.served.clear()
    assert judged(pull) == whole
    assert hub.served[first] == header_bytes(weights_of(hub)[first])
    assert not any(hub.served[name] for name in others)


def test_offline_the_cache_is_enough(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    whole = downloaded(pull)
    hub.seen.clear()
    assert judged(pull, offline=True) == whole
    assert not hub.seen


def test_offline_nothing_is_made_up_for_missing_weights(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / SHARDED))
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        judged(pull, offline=True)
    downloaded(pull)
    pull.blob(min(weights_of(hub).items())[1]).unlink()
    with pytest.raises(BadCheckpoint, match="00001-of"):
        judged(pull, offline=True)


def test_a_preview_leaves_no_weights_in_the_cache(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, files_of(altered.CHECKPOINTS / "llama"))
    judged(pull)
    assert not [name for name in pull.files() if "safetensors" in name or sha256(weights_of(hub)[WEIGHTS]) in name]


# Names and sizes


def test_a_folder_is_its_own_preview() -> None:
    with checkpoint_preview(str(altered.CHECKPOINTS / "llama")) as folder:
        assert folder == altered.CHECKPOINTS / "llama"


@pytest.mark.parametrize("text", ["x.gguf", "org/name:Q8_0", "nonsense"])
def test_what_names_no_checkpoint_is_refused(pull: Puller, text: str) -> None:
    with pytest.raises(BadName), checkpoint_preview(text, library=library(pull)):
        raise AssertionError("nothing is there to be seen")


def test_weights_of_a_size_that_no_disk_has_are_refused(
    pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(hub.add(NAME, files_of(altered.CHECKPOINTS / "llama")).files[WEIGHTS])
    monkeypatch.setattr(preview, "MOST_WEIGHTS_BYTES", size - 1)
    with pytest.raises(HubError, match=f"a size of {size:,} bytes"):
        judged(pull)
    assert not hub.served[WEIGHTS]


# The command


@pytest.fixture
def command(pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``ingle convert`` at the fake hub."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(pull.cache.root))
    return lambda *arguments: CliRunner().invoke(convert_command, [*arguments])


def test_the_command_fetches_no_weights(command: Callable[..., Result], pull: Puller, hub: FakeHub, bard: Path) -> None:
    hub.add(NAME, files_of(bard))
    result = command(NAME, "--check", "--json")
    assert result.exit_code == 0, result.output
    assert hub.served[WEIGHTS] == header_bytes(weights_of(hub)[WEIGHTS]) < 10_000
    assert json.loads(result.stdout)["items"] == [asdict(item) for item in downloaded(pull)]


def test_the_command_tells_what_cannot_be_converted(command: Callable[..., Result], hub: FakeHub) -> None:
    hub.add(NAME, faketools.checkpoint())
    result = command(NAME, "--check")
    assert result.exit_code == 2
    assert "fail" in result.stdout


def test_the_command_judges_the_dtype_that_was_asked_for(command: Callable[..., Result], bard: Path) -> None:
    assert "as F32" in command(str(bard), "--check", "--dtype", "F32").stdout


# The span that is read


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_span_is_read_whatever_the_chunks(content: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    heeds_range = data.draw(st.booleans())
    chunk = data.draw(st.integers(1, 50))
    taken: list[int] = []

    class Opened:
        def __init__(self, offset: int) -> None:
            self.offset = offset if heeds_range else 0

        def __enter__(self) -> Body:
            return Body(self.offset, self.chunks())

        def __exit__(self, *_: object) -> None: ...

        def chunks(self) -> Iterator[bytes]:
            for at in range(self.offset, len(content), chunk):
                taken.append(at)
                yield content[at : at + chunk]

    assert read_span(Opened, start, stop, Patience()) == content[start:stop]
    assert all(at < stop for at in taken)
