"""What a hub says of a repository: understood, or refused as the hub's fault, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ingle.convert.errors import BadCheckpoint, HubError, InputError
from ingle.runtime.store.cache import Cache
from ingle.runtime.store.repository import RemoteFile, Repository, from_reply
from ingle.runtime.store.selection import choose, small_files, variants, weight_files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(st.sampled_from("ab./\\\0-:~ é"), max_size=12) | st.sampled_from(["../x", "/x", "x/..", "config.json"])
ETAGS = st.text(st.sampled_from("0aZ/."), max_size=3) | st.sampled_from(["a" * 40, "b" * 64, "c" * 63 + "/"])
SIBLINGS = st.fixed_dictionaries(
    {"rfilename": NAMES, "size": st.integers(-1, 10), "blobId": ETAGS}, optional={"lfs": JSON}
)
REPLIES = st.fixed_dictionaries({"sha": st.just("a" * 40) | JSON, "siblings": st.lists(SIBLINGS, max_size=3) | JSON})


@given(JSON | REPLIES)
def test_any_answer_is_understood_or_refused(reply: Any) -> None:
    try:
        repository = from_reply("org/x", reply)
    except HubError:
        return
    cache = Cache(Path("/cache"))
    for file in repository.files.values():
        assert (cache.snapshot(repository) / file.name).is_relative_to(cache.snapshot(repository))
        assert ".." not in file.name.split("/")
        assert cache.blob("org/x", file).parent == Path("/cache/models--org--x/blobs")


@example(["..gguf", "...gguf", "a/.gguf"], "")
@given(st.lists(st.from_regex(r"[a-cA-Q0-9_.-]{1,12}(-0000[1-3]-of-00003)?\.gguf", fullmatch=True), max_size=5), ETAGS)
def test_any_set_of_gguf_names_leads_to_one_or_to_a_clear_refusal(names: list[str], wanted: str) -> None:
    repository = Repository("org/x", "a" * 40, {name: RemoteFile(name, 1, "a" * 64) for name in names})
    try:
        found = variants(repository)
        if found:
            chosen, reason = choose(found, wanted or None, repository.id)
            assert chosen in found
            assert reason
    except (HubError, InputError) as error:
        assert error.message


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize(
    "index",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": []}}', '{"weight_map": {"a": 1}}', "[" * 100_000],
)
def test_a_broken_index_is_refused(index: str, name: str) -> None:
    with pytest.raises(BadCheckpoint, match="index"):
        weight_files(Repository("org/x", "a" * 40, {name: RemoteFile(name, 1, "a" * 64)}), index)


def test_templates_of_a_subfolder_are_needed_and_others_are_not() -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors", "additional_chat_templates/tool.jinja", "a/b.json"]
    repository = Repository("org/x", "a" * 40, {name: RemoteFile(name, 1, "a" * 64) for name in names})
    assert [file.name for file in small_files(repository)] == [names[0], names[1], names[3]]
    assert [file.name for file in weight_files(repository, None)] == ["model.safetensors"]


def test_a_checksum_is_of_the_kind_that_its_length_says() -> None:
    assert RemoteFile("x", 3, "a" * 64).hasher().name == "sha256"
    small = RemoteFile("x", 0, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    assert small.hasher().hexdigest() == small.etag, "git's name for an empty file"


def test_a_reply_of_the_real_form_is_understood() -> None:
    reply = json.loads(
        '{"sha": "'
        + "a" * 40
        + '", "siblings": [{"rfilename": "config.json", "size": 3, "blobId": "'
        + "b" * 40
        + '"}, '
        '{"rfilename": "model.safetensors", "size": 9, "blobId": "' + "c" * 40 + '", '
        '"lfs": {"sha256": "' + "d" * 64 + '", "size": 9, "pointerSize": 1}}]}'
    )
    assert from_reply("org/x", reply).files == {
        "config.json": RemoteFile("config.json", 3, "b" * 40),
        "model.safetensors": RemoteFile("model.safetensors", 9, "d" * 64),
    }
