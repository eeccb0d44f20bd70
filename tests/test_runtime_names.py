"""Model names: the grammar, and that no name leads out of the store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert.errors import BadName
from ingle.runtime.store.names import FileName, FolderName, HubName, parse

TRICKY = st.text(st.sampled_from("abZ019._-/:@~%\\ \0é"), max_size=40)
PART = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9._]{0,8}[A-Za-z0-9_])?", fullmatch=True).filter(lambda t: ".." not in t)
TYPE = st.from_regex(r"[A-Z0-9][A-Z0-9_.-]{0,10}", fullmatch=True)
REVISION = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,8}(/[A-Za-z0-9_]{1,5})?", fullmatch=True).filter(
    lambda t: ".." not in t
)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("org/name", HubName("org", "name")),
        ("org/name:Q4_K_M", HubName("org", "name", "Q4_K_M")),
        ("org/name:q4_k_m", HubName("org", "name", "Q4_K_M")),
        ("org/name@main", HubName("org", "name", None, "main")),
        ("org/name:Q8_0@refs/pr/1", HubName("org", "name", "Q8_0", "refs/pr/1")),
        ("org/name@refs/pr/1:Q8_0", HubName("org", "name", "Q8_0", "refs/pr/1")),
        ("a/Qwen3-0.6B:UD-Q4_K_XL", HubName("a", "Qwen3-0.6B", "UD-Q4_K_XL")),
        ("/x/y", FolderName(Path("/x/y"))),
        ("/x/y:Q8_0", FolderName(Path("/x/y"), "Q8_0")),
        ("/x:Q8_0/y", FolderName(Path("/x:Q8_0/y"))),
        ("/x/y:z/", FolderName(Path("/x/y:z"))),
        ("/x/y.gguf/", FolderName(Path("/x/y.gguf"))),
        ("/x/y.gguf", FileName(Path("/x/y.gguf"))),
        ("/x/y.GGUF", FileName(Path("/x/y.GGUF"))),
    ],
)
def test_each_form_is_read(text: str, meaning: object) -> None:
    assert parse(text) == meaning


def test_relative_paths_are_read_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parse("./x:Q8_0") == FolderName(tmp_path / "x", "Q8_0")
    assert parse("x/y.gguf") == FileName(tmp_path / "x" / "y.gguf")
    assert parse("~/x") == FolderName(Path("/home/somebody/x"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt2",
        "a/b/c",
        "org/",
        "/".join(["x" * 60] * 2),
        "org/..",
        "org/name--x",
        "org/.name",
        "org/name:",
        "org/name:Q4/0",
        "org/name@",
        "org/name@../x",
        "org/name@a..b",
        "org/name@-x",
        "org/name@" + "r" * 65,
        "org/na me",
        "org/naïve",
        "org\\name",
        "org/name\0",
        "./x.gguf:Q8_0",
        "./x:a b",
        "x" * 5000,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadName) as refused:
        parse(text)
    assert refused.value.hint


def test_a_folder_without_its_dot_is_told_how_to_write_it() -> None:
    with pytest.raises(BadName, match=r"written \./gpt2"):
        parse("gpt2")


@given(PART, PART, st.none() | TYPE, st.none() | REVISION)
def test_hub_names_are_written_as_they_are_read(org: str, name: str, kind: str | None, revision: str | None) -> None:
    original = HubName(org, name, kind, revision)
    if not str(original).lower().endswith(".gguf"):
        assert parse(str(original)) == original


@given(TRICKY)
def test_any_text_is_a_name_or_refused_and_a_name_is_written_as_it_is_read(text: str) -> None:
    try:
        name = parse(text)
    except BadName:
        return
    assert parse(str(name)) == name


@given(TRICKY | st.text(max_size=60))
def test_no_name_leads_out_of_the_store(text: str) -> None:
    try:
        name = parse(text)
    except BadName:
        return
    if isinstance(name, FileName):
        return
    parts = name.key.split("/")
    assert len(parts) == (3 if isinstance(name, HubName) else 2)
    assert not {"", ".", ".."} & set(parts)
    assert os.path.normpath(f"/store/{name.key}") == f"/store/{name.key}"
    assert all(len(part.encode()) <= 240 for part in parts)


@given(st.lists(st.tuples(PART, PART, st.none() | REVISION), min_size=2, max_size=2, unique=True))
def test_different_models_have_different_keys(names: list[tuple[str, str, str | None]]) -> None:
    first, second = (HubName(org, name, None, revision) for org, name, revision in names)
    assert first.key != second.key
