"""Hostile checkpoints: refused, or converted, and in either case nothing of theirs runs.

Each group is read in a child process with at most 256 MB, 2 s of CPU for each file, and an audit hook that ends the
process at the first import, compilation, process, socket or unpickled name (tests/guarded.py).
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import guarded
import hostile_configs
import hostile_headers
import hostile_pickles
import hostile_tokenizers
from altered import CHECKPOINTS, copy

DATA = Path(__file__).parent / "data" / "torch"


def run(act: str, folder: Path, warm: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, guarded.__file__, act, str(folder), str(warm)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def outcomes(act: str, folder: Path, warm: Path) -> dict[str, str]:
    done = run(act, folder, warm)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["peak_bytes"] <= guarded.MOST_BYTES
    assert not list(folder.rglob("CANARY"))
    return dict(result["outcomes"])


def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    cases = dict(hostile_pickles.files())
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    found = outcomes("pickle", tmp_path, DATA / "archive.bin")
    assert len(found) == len(cases) >= 60
    assert {name: text for name, text in found.items() if not text.startswith("BadCheckpoint: ")} == {}
    unnamed = [name for name in hostile_pickles.GADGETS[::3] if f"refers to '{name}'" not in found[f"calls {name}"]]
    assert not unnamed


def test_hostile_headers_are_refused(tmp_path: Path) -> None:
    cases = dict(hostile_headers.files())
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    found = outcomes("safetensors", tmp_path, DATA / "expected.safetensors")
    assert len(found) == len(cases) >= 40
    assert {name: text for name, text in found.items() if not text.startswith("BadCheckpoint: ")} == {}
    assert max(map(len, found.values())) < 1000


def test_code_that_comes_with_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    config = json.loads((CHECKPOINTS / "llama" / "config.json").read_text())
    cases = dict(hostile_configs.folders(config))
    for name, files in cases.items():
        folder = copy("llama", tmp_path / "in" / "copies").rename(tmp_path / "in" / name)
        for path, text in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
    (tmp_path / "in" / "copies").rmdir()
    found = outcomes("convert", tmp_path / "in", copy("llama", tmp_path / "warm" / "in"))
    assert len(found) == len(cases) >= 40
    refused = {name for name, text in found.items() if text.startswith(("UnsupportedModel: ", "BadCheckpoint: "))}
    assert {name for name, text in found.items() if text == "done"} == cases.keys() - refused
    assert {
        "an unknown class",
        "a type that is code",
        "an activation that is code",
        "a quantizer that is code",
    } < refused
    assert {"auto_map", "trust_remote_code", "shadows of the library", "a tokenizer map"}.isdisjoint(refused)


def test_hostile_tokenizers_are_refused(tmp_path: Path) -> None:
    sound = json.loads((CHECKPOINTS / "llama" / "tokenizer.json").read_text(encoding="utf-8"))
    cases = dict(hostile_tokenizers.files(sound))
    for name, data in cases.items():
        folder = tmp_path / "in" / name.replace("/", " ")
        folder.mkdir(parents=True)
        for file in (CHECKPOINTS / "llama").iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").write_bytes(data)
    found = outcomes("convert", tmp_path / "in", copy("llama", tmp_path / "warm" / "in"))
    assert len(found) == len(cases) >= 50
    refused = ("BadCheckpoint: ", "UnsupportedModel: ")
    assert {name: text for name, text in found.items() if not text.startswith(refused)} == {}
    assert max(map(len, found.values())) < 2_000


class Gadget:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch CANARY",)


def test_the_guard_catches_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(pickle.dumps(Gadget()))
    caught = run("unpickle", tmp_path, tmp_path / "none")
    assert caught.returncode == guarded.RAN
    assert "pickle.find_class" in caught.stderr
    assert outcomes("allocate", tmp_path, tmp_path / "none") == {"file": "MemoryError"}
    assert run("spin", tmp_path, tmp_path / "none").returncode < 0
    assert not list(tmp_path.rglob("CANARY"))
