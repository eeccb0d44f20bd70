"""Pulling from a hub: what is fetched, what is made of it, and what is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakehub import FakeHub, sha256
from faketools import checkpoint, sharded
from ingle.convert import gguf
from ingle.convert.errors import (
    BadCheckpoint,
    BadName,
    HubError,
    InputError,
    UnknownType,
    UnsupportedModel,
)
from ingle.runtime.store.selection import default_type
from ingle.runtime.store.stages import Tools
from pulling import NAME, WEIGHTS, Puller, puller, run_python


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        yield pull


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


def test_a_checkpoint_is_fetched_converted_proven_and_kept(pull: Puller, hub: FakeHub) -> None:
    repo = hub.add(NAME, checkpoint())
    entry = pull()
    assert pull.workmen.done == ["quantize Q8_0", "prove"]
    assert (entry.name, entry.type, entry.source.version) == ("org/tiny:Q8_0", "Q8_0", repo.commit)
    assert entry.sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()
    assert entry.proof == {"strings": 3, "bytes": entry.size_bytes}
    assert "100,000 parameters" in entry.reason
    assert pull.store.find(NAME) == pull.store.find("org/tiny:q8_0") == entry
    assert pull.store.list() == (entry,)
    assert not hub.bodies("training_args.bin")


def test_what_is_here_is_found_without_a_request(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    entry = pull()
    hub.seen.clear()
    assert pull() == entry
    assert not hub.seen


def test_the_cache_is_the_one_of_the_hub_client(pull: Puller, hub: FakeHub) -> None:
    repo = hub.add(NAME, checkpoint())
    pull()
    code = "import huggingface_hub as h; print(h.snapshot_download('org/tiny', local_files_only=True))"
    found = run_python(code, {"HF_HUB_CACHE": str(pull.cache.root)}).strip()
    assert found == str(pull.cache.folder(NAME) / "snapshots" / repo.commit)
    assert Path(found, WEIGHTS).read_bytes() == repo.files[WEIGHTS]
    assert (Path(found, WEIGHTS)).readlink() == Path("../../blobs", sha256(repo.files[WEIGHTS]))


def test_what_the_hub_client_fetched_is_not_fetched_again(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    code = "import huggingface_hub as h; h.snapshot_download('org/tiny', max_workers=1)"
    run_python(code, {"HF_HUB_CACHE": str(pull.cache.root), "HF_ENDPOINT": hub.endpoint})
    hub.seen.clear()
    pull()
    assert [seen.path.split("/")[1] for seen in hub.seen] == ["api"]


def test_a_type_is_asked_for_by_any_of_its_names(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    entry = pull("org/tiny:Q4_K_M")
    assert pull.workmen.done == ["quantize Q4_K_M", "prove"]
    assert entry.proof
    assert pull.store.find("org/tiny:Q4_K") == pull.store.find("org/tiny:q4-k-m") == entry


def test_shards_come_from_the_index(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, sharded())
    assert pull().type == "Q8_0"
    assert len([seen for seen in hub.bodies("cdn") if not seen.range]) == 2
    assert sum(hub.served[name] for name in hub.repos[NAME].files if name.endswith(".safetensors")) < 2 * 100_500


def test_an_index_can_not_name_foreign_files(pull: Puller, hub: FakeHub) -> None:
    files = sharded()
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode()
    hub.add(NAME, files)
    with pytest.raises(BadCheckpoint, match=r"\.\./\.\./x\.safetensors"):
        pull()


@pytest.mark.parametrize(("parameters", "expected"), [(999_999_999, "Q8_0"), (1_000_000_000, "Q4_K_M")])
def test_the_default_type_goes_by_size(parameters: int, expected: str) -> None:

    chosen, reason = default_type(parameters)
    assert chosen == expected
    assert f"{parameters:,}" in reason


def test_an_unknown_type_is_refused_before_anything_is_fetched(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    with pytest.raises(UnknownType):
        pull("org/tiny:Q9_9")
    with pytest.raises(InputError, match="importance matrix"):
        pull("org/tiny:IQ2_XXS")
    assert not hub.bodies("resolve")


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_repository_that_is_no_checkpoint_is_refused_by_name(pull: Puller, hub: FakeHub, lacking: str) -> None:
    files = checkpoint()
    del files[lacking]
    hub.add(NAME, files)
    with pytest.raises(BadCheckpoint, match=lacking.replace(".", r"\.")):
        pull()
    assert not hub.bodies("resolve")


def test_an_unsupported_model_is_refused_before_its_weights_are_fetched(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint() | {"config.json": b'{"architectures": ["UnheardOfForCausalLM"]}'})
    pull.tools = Tools()
    with pytest.raises(UnsupportedModel, match="UnheardOfForCausalLM"):
        pull()
    assert not hub.bodies("cdn")


# In place


def tiny_gguf(folder: Path, file_type: int = 15) -> bytes:
    path = folder / "made.gguf"
    gguf.write(path, {"general.architecture": "llama", "general.file_type": file_type}, [])
    return path.read_bytes()


def gguf_repo(folder: Path) -> dict[str, bytes]:
    content = tiny_gguf(folder)
    return {f"tiny-{label}.gguf": content + label.encode() for label in ("Q8_0", "Q4_K_M", "f16")} | {
        "mmproj-tiny-f16.gguf": b"projector",
        "README.md": b"hello",
    }


def test_a_gguf_repository_is_used_in_place(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    files = gguf_repo(tmp_path)
    repo = hub.add(NAME, files)
    entry = pull()
    assert not pull.workmen.done
    assert (entry.type, entry.built) == ("Q4_K_M", False)
    assert entry.path == pull.cache.folder(NAME) / "snapshots" / repo.commit / "tiny-Q4_K_M.gguf"
    assert entry.sha256 == sha256(files["tiny-Q4_K_M.gguf"])
    assert entry.reason == "none was asked for; the repository has F16, Q4_K_M, Q8_0"
    assert [name for name in pull.files() if name.startswith("ingle/")] == ["ingle/models/org/tiny/Q4_K_M.json"]
    assert pull("org/tiny:F16").path.name == "tiny-f16.gguf"
    assert {entry.type for entry in pull.store.list()} == {"F16", "Q4_K_M"}


def test_a_type_that_a_gguf_repository_lacks_is_refused_with_what_it_has(
    pull: Puller, hub: FakeHub, tmp_path: Path
) -> None:
    hub.add(NAME, gguf_repo(tmp_path))
    with pytest.raises(BadName, match="F16, Q4_K_M, Q8_0"):
        pull("org/tiny:Q6_K")


def test_a_type_that_only_the_checkpoint_can_give_is_built(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, gguf_repo(tmp_path) | checkpoint())
    assert not pull().built
    assert pull("org/tiny:Q6_K").built


def test_all_parts_of_a_split_model_are_fetched(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    content = tiny_gguf(tmp_path)
    names = [f"Q8_0/tiny-Q8_0-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    hub.add(NAME, dict.fromkeys(names, content))
    entry = pull("org/tiny:Q8_0")
    assert [file.path.name for file in entry.files] == [name.split("/")[1] for name in names]
    assert entry.size_bytes == 3 * len(content)
    del hub.repos[NAME].files[names[1]]
    with pytest.raises(HubError, match="number 2"):
        pull("org/tiny:Q8_0", update=True)


def test_the_type_of_an_unlabelled_gguf_is_read_from_it(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, {"tiny.gguf": tiny_gguf(tmp_path, file_type=18)})
    assert pull().name == "org/tiny:Q6_K"


def test_two_files_of_one_type_are_told_apart_by_name(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    content = tiny_gguf(tmp_path)
    hub.add(NAME, {"a-Q8_0.gguf": content, "b-Q8_0.gguf": content})
    with pytest.raises(BadName, match="2 GGUF files"):
        pull()
    assert pull("org/tiny:b-Q8_0").path.name == "b-Q8_0.gguf"


# Revisions


def test_a_pull_follows_the_branch_and_a_run_does_not(pull: Puller, hub: FakeHub) -> None:
    hub.add(NAME, checkpoint())
    first = pull()
    second_repo = hub.add(NAME, checkpoint(50_000))
    assert pull() == first
    second = pull(update=True)
    assert second.source.version == second_repo.commit != first.source.version
    assert not first.path.exists()
    assert pull.store.list() == (second,)
    assert pull(update=True) == second
    assert pull.workmen.done == ["quantize Q8_0", "prove"] * 2


def test_removing_leaves_the_checkpoint_in_the_cache_unless_asked(
    pull: Puller, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(pull.cache.root))
    downloaded = [content for name, content in hub.add(NAME, checkpoint()).files.items() if name != "training_args.bin"]
    pull()
    removed = pull.store.remove(NAME)
    assert {path.name for path in removed.left} == {"README.md", "config.json", "tokenizer.json", WEIGHTS}
    hub.seen.clear()
    built = pull()
    assert not hub.bodies("cdn")
    removed = pull.store.remove(NAME, from_cache=True)
    assert removed.freed_bytes == built.size_bytes + sum(map(len, downloaded))
    assert removed.left == ()
    assert not list(pull.cache.folder(NAME).glob("blobs/*"))


def test_a_revision_is_a_model_of_its_own(pull: Puller, hub: FakeHub) -> None:
    commit = hub.add(NAME, checkpoint()).commit
    entry = pull(f"{NAME}@{commit}")
    assert entry.name == f"org/tiny:Q8_0@{commit}"
    with pytest.raises(InputError):
        pull.store.find(NAME)
