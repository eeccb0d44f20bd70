"""A vision model in the store is two files, fetched, kept, checked and removed together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import GREEDY
from faketools import Workmen
from ingle.convert import convert, gguf
from ingle.convert.errors import ChecksumMismatch, ModelNotFound, UnsupportedModel
from ingle.runtime import Model
from ingle.runtime.options import LoadOptions
from ingle.runtime.server.catalog import StoreCatalog
from ingle.runtime.store import build
from ingle.runtime.store.checkpoint import Checkpoint
from ingle.runtime.store.manifest import Entry
from ingle.runtime.store.stages import Tools
from ingle.runtime.store.store import Store
from pulling import NAME, Puller, puller
from seeing import VISION, copy, golden, messages

# The proof is under test elsewhere, and takes longer than the rest.
TOOLS = replace(Tools(), prove=Workmen().prove)
SMOLVLM = VISION / "smolvlm"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "ingle")


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        pull.tools = TOOLS
        yield pull


def built(store: Store, name: str) -> Entry:
    entry = build.obtain(name, store, tools=TOOLS)
    assert entry.projector is not None
    return entry


def repository() -> dict[str, bytes]:
    ours = {path.name: path for path in SMOLVLM.iterdir() if path.suffix != ".png" and path.name != "golden.json"}
    return {name: path.read_bytes() for name, path in ours.items()}


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_folder_becomes_two_files_whatever_the_type(store: Store, tmp_path: Path, kind: str) -> None:
    folder = copy("smolvlm", tmp_path)
    entry = built(store, f"{folder}:{kind}")
    assert store.find(str(folder)) == entry
    assert entry.projector is not None
    assert {path.name for path in entry.path.parent.iterdir()} == {
        entry.path.name, entry.projector.path.name, f"{kind}.json",
    }  # fmt: skip
    assert entry.size_bytes == entry.path.stat().st_size + entry.projector.path.stat().st_size
    found = gguf.read(entry.projector.path)
    assert found.metadata["general.type"] == "mmproj"
    assert found.tensors["v.blk.0.ffn_up.weight"].type.name == ("F16" if kind == "F16" else "BF16")


def test_a_build_that_was_killed_before_it_was_recorded_has_its_vision_part_again(store: Store, tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)

    def killed(checkpoint: Checkpoint, out: Path, *more: Any) -> None:
        TOOLS.quantize(checkpoint, out, *more)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build.obtain(f"{folder}:Q4_0", store, tools=replace(TOOLS, quantize=killed))
    entry = built(store, f"{folder}:Q4_0")
    assert entry.projector is not None
    assert gguf.read(entry.projector.path).metadata["general.type"] == "mmproj"


def test_both_files_are_checked_and_go_together(store: Store, tmp_path: Path) -> None:
    folder = copy("smolvlm", tmp_path)
    entry = built(store, f"{folder}:Q8_0")
    assert store.verify(entry.name) == entry
    assert entry.projector is not None
    data = bytearray(entry.projector.path.read_bytes())
    data[-1] ^= 1
    entry.projector.path.write_bytes(data)
    with pytest.raises(ChecksumMismatch, match="mmproj"):
        store.verify(entry.name)
    entry.projector.path.unlink()
    with pytest.raises(ModelNotFound, match="mmproj"):
        store.find(entry.name)
    entry.projector.path.write_bytes(data)
    removed = store.remove(entry.name)
    assert removed.freed_bytes == entry.size_bytes
    assert not list(store.home.rglob("*.gguf"))


def test_a_checkpoint_of_the_hub_comes_with_what_it_says_of_pictures(pull: Puller) -> None:
    pull.hub.add(NAME, repository())
    entry = pull()
    assert entry.projector is not None
    with Model.load(entry.path, options=LoadOptions(threads=1)) as model:
        list(model.chat(messages("smolvlm", "other"), sampling=GREEDY, max_tokens=2))
        assert model.info.projector == str(entry.projector.path)


def test_a_vision_part_that_cannot_be_converted_is_refused_before_its_weights_come(pull: Puller) -> None:
    files = repository()
    processor = json.loads(files["processor_config.json"])
    processor["image_processor"]["do_image_splitting"] = False
    pull.hub.add(NAME, files | {"processor_config.json": json.dumps(processor).encode()})
    with pytest.raises(UnsupportedModel, match="tiles"):
        pull()
    assert not pull.hub.bodies("model.safetensors")


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, bytes]:
    """A GGUF repository as they are on the hub: models, and projectors with names of their own."""
    path = convert(SMOLVLM, tmp_path / "own.gguf", "f32").path
    projector = path.with_name("own-mmproj.gguf").read_bytes()
    models = {f"tiny-{label}.gguf": path.read_bytes() + label.encode() for label in ("Q8_0", "Q4_0")}
    return models | {"mmproj-tiny-Q8_0.gguf": b"GGUF", "mmproj-tiny-f16.gguf": projector}


def test_a_gguf_repository_is_used_with_its_projector(pull: Puller, pair: dict[str, bytes]) -> None:
    pull.hub.add(NAME, pair)
    entry = pull()
    assert entry.projector is not None
    assert (entry.built, entry.projector.path.name, len(entry.files)) == (False, "mmproj-tiny-f16.gguf", 1)
    assert pull.store.find(NAME) == entry
    assert not pull.hub.bodies("mmproj-tiny-Q8_0.gguf")
    exact = LoadOptions(kv_type="f32", flash_attention="off", threads=1)
    catalog = StoreCatalog(pull.store, replace(exact, mmproj="of/another.gguf"))
    model = catalog.load(catalog.find(NAME))
    try:
        stream = model.chat(messages("smolvlm", "fitting"), sampling=GREEDY, max_tokens=12)
        found = [token for delta in stream for token in delta.tokens]
        assert found == golden("smolvlm")["cases"]["fitting"]["answer"]
    finally:
        model.close()
    other = pull(f"{NAME}:Q4_0")
    assert other.projector == entry.projector
    pull.store.remove(other.name, from_cache=True)
    assert pull.store.find(NAME) == entry
    removed = pull.store.remove(NAME, from_cache=True)
    assert removed.freed_bytes == entry.size_bytes
    assert not any(name.endswith(".gguf") for name in pull.files())


def test_manifests_without_a_projector_are_still_read(store: Store, tmp_path: Path) -> None:
    """Those of earlier versions do not name one."""
    folder = copy("smolvlm", tmp_path)
    entry = built(store, f"{folder}:Q8_0")
    path = entry.path.with_name("Q8_0.json")
    record = json.loads(path.read_text())
    del record["projector"]
    path.write_text(json.dumps(record))
    assert store.find(entry.name) == replace(entry, projector=None)
