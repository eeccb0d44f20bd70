"""The commands pull, list, show, rm and verify."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from faketools import Workmen, checkpoint, tiny_gguf, write
from ingle.convert import gguf
from ingle.convert.errors import (
    ChecksumMismatch,
)
from ingle.convert.vocabulary import VERDICT_KEY
from ingle.runtime.cli.main import ingle
from ingle.runtime.store import build, manifest
from ingle.runtime.store.manifest import Entry, KeptFile
from ingle.runtime.store.store import Store, sha256


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


def run(*arguments: str) -> str:
    """What a command prints on stdout."""
    result = CliRunner().invoke(ingle, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def built(store: Store, workmen: Workmen, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    entry = obtain(folder, store, workmen)
    tiny_gguf(entry.path)
    size_bytes = entry.path.stat().st_size
    entry = replace(entry, files=(KeptFile(entry.path, size_bytes, sha256(entry.path)),))
    manifest.write(entry.path.with_name("Q8_0.json"), entry)
    return entry


def test_list_shows_what_is_here(built: Entry) -> None:
    header, line = run("list").splitlines()
    assert header.split() == ["NAME", "TYPE", "SIZE", "FILE", "SINCE"]
    assert line.startswith(built.name)
    (record,) = json.loads(run("list", "--json"))
    assert (record["name"], record["sha256"], record["path"]) == (built.name, built.sha256, str(built.path))


def test_list_of_an_empty_store_says_what_to_do(ingle_home: Path) -> None:
    assert json.loads(run("list", "--json")) == []
    result = CliRunner().invoke(ingle, ["list"])
    assert "ingle pull" in result.stderr


def test_show_tells_what_is_known(built: Entry, folder: Path) -> None:
    lines = dict(line.split(None, 1) for line in run("show", str(folder)).splitlines())
    assert lines["architecture"] == "llama"
    assert lines["context"] == "512 tokens"
    assert lines["licence"] == "mit"
    assert lines["vocabulary"] == "3 tokens"
    assert lines["proof"] == "its conversion was equal to the checkpoint in the tokens of 3 texts"
    facts = json.loads(run("show", str(folder), "--json"))
    assert (facts["context_length"], facts["chat_template"], facts["type"]) == (512, True, "Q8_0")
    assert run("show", str(folder), "--template") == "{{ messages }}\n"
    assert json.loads(run("show", str(folder), "--metadata", "--json"))["general.file_type"] == 15


def test_show_says_how_far_llama_cpp_alone_can_tokenize(tmp_path: Path) -> None:
    file = tmp_path / "v.gguf"
    gguf.write(file, {"general.architecture": "llama", VERDICT_KEY: "known: 3 of 4,000 texts"}, [])
    assert json.loads(run("show", str(file), "--json"))["tokenizer"] == "known: 3 of 4,000 texts"
    lines = dict(line.split(None, 1) for line in run("show", str(file)).splitlines())
    assert lines["tokenizer"] == "llama.cpp's: known: 3 of 4,000 texts"


def test_show_takes_a_gguf_file(tmp_path: Path) -> None:
    facts = json.loads(run("show", str(tiny_gguf(tmp_path / "my.gguf")), "--json"))
    assert (facts["type"], facts["sha256"], facts["built"]) == ("Q4_K_M", "", False)


def test_verify_names_what_differs(built: Entry, folder: Path) -> None:
    assert run("verify").startswith(f"ok   {built.name}")
    built.path.write_bytes(bytes(built.size_bytes))
    result = CliRunner().invoke(ingle, ["verify", "--json"])
    assert isinstance(result.exception, ChecksumMismatch)
    assert result.exception.exit_code == 5
    (record,) = json.loads(result.stdout)
    assert not record["ok"]
    assert built.path.name in record["detail"]


def test_rm_says_what_it_frees(built: Entry, folder: Path) -> None:
    assert f"removed {built.name}" in run("rm", str(folder))
    assert not built.path.exists()


def test_pull_says_what_it_chose(store: Store, workmen: Workmen, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "Tools", lambda: workmen.tools)
    result = CliRunner().invoke(ingle, ["pull", str(folder)], catch_exceptions=False)
    assert result.stdout == f"{folder}:Q8_0  200 kB  converted and proven\n"
    assert "less than a billion" in result.stderr
    (record,) = json.loads(run("pull", str(folder), "--json"))
    assert record["name"] == f"{folder}:Q8_0"
