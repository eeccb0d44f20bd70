"""A hub that breaks off, changes bytes, lies or attacks; and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakehub import FakeHub, sha256
from faketools import checkpoint
from ingle.convert.errors import (
    ChecksumMismatch,
    HubError,
)
from ingle.runtime.store.hub import Hub, _redirected, _split
from ingle.runtime.store.names import HubName
from pulling import NAME, WEIGHTS, Puller, puller


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        yield pull


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


# Broken connections


def test_a_cut_download_goes_on_where_it_stopped(pull: Puller, hub: FakeHub) -> None:
    size = len(hub.add(NAME, checkpoint()).files[WEIGHTS])
    hub.fault(where=f"cdn/{NAME}/x/{WEIGHTS}", cut_at=70_000, times=2)
    pull()
    assert [seen.range for seen in hub.bodies("cdn")] == ["", "bytes=70000-", "bytes=140000-"]
    assert ("download", size, size) in pull.progress


def test_the_next_run_goes_on_where_a_failed_one_stopped(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    fault = hub.fault(where="cdn", cut_at=70_000)
    broken = hub.fault(where="cdn", status=503)
    fault.times = 1
    with pytest.raises(HubError, match="503"):
        pull()
    assert pull.store.list() == ()
    broken.times = 0
    hub.seen.clear()
    pull()
    assert [seen.range for seen in hub.bodies("cdn")] == ["bytes=70000-"]


def test_a_server_without_ranges_starts_again(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="cdn", cut_at=70_000, times=1)
    hub.fault(where="cdn", ignore_range=True)
    assert pull().path.exists()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(pull: Puller, hub: FakeHub, status: int) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="api", status=status, times=2, retry_after="0")
    hub.fault(where="cdn", status=status, times=2)
    assert pull().path.exists()


def test_a_hub_that_asks_for_too_long_a_wait_is_left(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="api", status=429, retry_after="100000")
    with pytest.raises(HubError, match="429"):
        pull()


def test_no_hub_at_all(pull: Puller, hub: FakeHub, free_port: int) -> None:
    hub.port = free_port
    with pytest.raises(HubError, match=f"no connection to http://127.0.0.1:{free_port}"):
        pull()


# Checksums


@pytest.mark.parametrize("at", [0, 1, 100_000, -1])
def test_changed_bytes_of_the_same_size_are_refused(pull: Puller, hub: FakeHub, at: int) -> None:
    hub.add(NAME, checkpoint())
    fault = hub.fault(where="cdn", flip_at=at)
    with pytest.raises(ChecksumMismatch, match=WEIGHTS):
        pull()
    assert not [name for name in pull.files() if sha256(checkpoint()[WEIGHTS]) in name or "safetensors" in name]
    assert pull.store.list() == ()
    fault.times = 0
    assert pull().path.exists()


def test_a_small_file_is_checked_too(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="resolve/" + hub.repos[NAME].commit + "/config.json", flip_at=3)
    with pytest.raises(ChecksumMismatch, match=r"config\.json"):
        pull()


def test_earlier_bytes_that_rotted_are_fetched_again(pull: Puller, hub: FakeHub) -> None:
    content = hub.add(NAME, checkpoint()).files[WEIGHTS]
    partial = pull.blob(content).with_name(pull.blob(content).name + ".ingle.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * 50_000)
    pull()
    assert [seen.range for seen in hub.bodies("cdn")] == ["bytes=50000-", ""]
    assert pull.blob(content).read_bytes() == content


def test_a_rotten_blob_of_the_cache_is_replaced(pull: Puller, hub: FakeHub) -> None:
    content = hub.add(NAME, checkpoint()).files[WEIGHTS]
    blob = pull.blob(content)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content[:-1] + b"?")
    pull()
    assert blob.read_bytes() == content


def test_a_body_longer_than_announced_is_refused(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.siblings["size"] = 10
    with pytest.raises(ChecksumMismatch, match="longer than the 10 bytes"):
        pull()


# Hostile hubs


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/x.json", "a/../../x.json", "a//x.json", "./x.json", "a\\..\\x.json", "x\0.json", ""]
)
def test_hostile_file_names_are_refused_before_anything_is_fetched(pull: Puller, hub: FakeHub, name: str) -> None:
    hub.add(NAME, checkpoint() | {"extra": b"1"})
    hub.siblings["rfilename"] = name
    with pytest.raises(HubError, match="not a path inside"):
        pull()
    assert not hub.bodies("resolve")
    assert not pull.files()


@pytest.mark.parametrize("etag", ["../../../evil", "/etc/passwd", "", "0" * 63, "G" * 64, "0" * 64 + "/x"])
@pytest.mark.parametrize("large", [True, False])
def test_hostile_checksums_are_refused_before_anything_is_fetched(
    pull: Puller, hub: FakeHub, etag: str, large: bool
) -> None:
    hub.add(NAME, checkpoint())
    hub.siblings |= {"lfs": {"sha256": etag}} if large else {"blobId": etag, "lfs": None}
    with pytest.raises(HubError, match="neither SHA-256 nor SHA-1"):
        pull()
    assert not hub.bodies("resolve")
    assert not pull.files()


def test_a_hostile_etag_header_is_not_looked_at(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="resolve", etag="../../../../../../" + str(tmp_path / "evil"))
    pull()
    assert {path.name for path in tmp_path.iterdir()} == {"disk"}


@pytest.mark.parametrize("field", ["rfilename", "size", "blobId"])
def test_an_answer_of_the_wrong_form_is_refused(pull: Puller, hub: FakeHub, field: str) -> None:
    hub.add(NAME, checkpoint())
    hub.siblings |= {field: [1], "lfs": None}
    with pytest.raises(HubError):
        pull()
    assert not pull.files()


@pytest.mark.parametrize("size", [-1, None, "many"])
def test_a_size_that_is_none_is_refused(pull: Puller, hub: FakeHub, size: object) -> None:
    hub.add(NAME, checkpoint())
    hub.siblings["size"] = size
    with pytest.raises(HubError):
        pull()


@pytest.mark.parametrize("location", ["", "ftp://x/y", "file:///etc/passwd", "http://x:0/", "http://[x/y"])
def test_redirects_to_nowhere_are_refused(location: str) -> None:

    with pytest.raises(HubError):
        _split(_redirected("http://127.0.0.1/x", location))


def test_a_redirect_away_from_https_is_refused() -> None:

    with pytest.raises(HubError, match="refused"):
        _redirected("https://hub/x", "http://hub/x")
    assert _redirected("https://hub/x", "/y") == "https://hub/y"


@pytest.mark.parametrize("endpoint", ["", "hub", "ftp://hub", "http://", "http://a b", "http://h:0", "http://[::1"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(HubError, match="not an address") as refused:
        Hub(endpoint).repository(HubName("org", "x"))
    assert "HF_ENDPOINT" in refused.value.hint


def test_redirects_in_a_circle_end(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    hub.fault(where="api", location="/api/models/org/tiny/revision/main")
    with pytest.raises(HubError, match="redirects"):
        pull()


def test_the_token_goes_to_the_hub_only(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint(), private_token="hf_secret")
    with pytest.raises(HubError, match="401") as refused:
        pull()
    assert "HF_TOKEN" in refused.value.hint
    pull.token = "hf_secret"
    hub.seen.clear()
    pull()
    sent = {(seen.host.split(":")[0], seen.authorization) for seen in hub.seen}
    assert sent == {("127.0.0.1", "Bearer hf_secret"), ("localhost", "")}


@pytest.mark.parametrize(
    ("name", "says"), [("org/absent", "Repository not found"), ("org/tiny@absent", "Invalid rev id")]
)
def test_what_the_hub_does_not_have(pull: Puller, hub: FakeHub, name: str, says: str) -> None:
    hub.add(NAME, checkpoint())
    with pytest.raises(HubError, match=says) as refused:
        pull(name)
    assert "check the name" in refused.value.hint
