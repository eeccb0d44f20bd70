"""Adapters on the command line, of the hub, and behind the API."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapting
import openai
import pytest
from adapting import ADAPTERS, CHECKPOINTS
from click.testing import CliRunner, Result
from fake_model import FakeCatalog
from fakehub import FakeHub
from ingle.convert import convert, gguf
from ingle.convert.adapter import convert_adapter
from ingle.convert.errors import BadCheckpoint, BadRequest, HubError, InputError, ModelNotFound, UnsupportedModel
from ingle.quantize import quantize
from ingle.runtime.cli.convert import convert_command
from ingle.runtime.cli.options import load_options
from ingle.runtime.cli.show import show_command
from ingle.runtime.options import AdapterFile, LoadOptions
from ingle.runtime.server.catalog import Given, StoreCatalog, with_adapters
from ingle.runtime.server.openai_models import listing
from ingle.runtime.server.pool import Installed, Pool
from ingle.runtime.store.adapter import adapter_folder, base_of
from ingle.runtime.store.download import Library
from ingle.runtime.store.hub import Hub
from ingle.runtime.store.store import Store
from pulling import NAME, WEIGHTS, Puller, puller
from shell import finished, ingle

BASE = CHECKPOINTS / "qwen2"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(convert_command, [*map(str, arguments)])


# ---- convert and show ------------------------------------------------------------------------------------------


def test_convert_takes_an_adapter_and_says_what_was_proven(here: Path) -> None:
    result = invoke(ADAPTERS / "qwen2", "--base", BASE)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("qwen2.gguf  13.6 kB, F32, for Qwen2; equal to PEFT's merge in 8 weights (")
    assert result.stdout.endswith("loaded by llama.cpp\n")
    assert [path.name for path in here.iterdir()] == ["qwen2.gguf"]


def test_the_base_may_be_the_one_that_the_adapter_names(here: Path) -> None:
    (here / "qwen2").symlink_to(BASE)
    report = json.loads(invoke(ADAPTERS / "qwen2", "-o", "a.gguf", "--dtype", "f16", "--json").stdout)
    assert report["base"] == "Qwen2"
    assert report["dtype"] == "F16"
    assert report["loaded"] is True
    assert report["merge"]["weights"] == 8
    assert 0 < report["merge"]["largest_error"] < 4e-3


def test_check_gives_a_verdict_per_item_of_an_adapter(here: Path) -> None:
    result = invoke(ADAPTERS / "qwen2", "--base", BASE, "--check", "--json")
    assert result.exit_code == 0
    items = {item["name"]: item for item in json.loads(result.stdout)["items"]}
    assert items["adapter"]["detail"].startswith("rsLoRA on 8 modules, rank 2, 3, 5, scale 2.23607, ")
    assert items["tensors"]["detail"] == "16 for 8 of 26 weights"
    wrong = invoke(ADAPTERS / "qwen2", "--base", CHECKPOINTS / "llama", "--check")
    assert wrong.exit_code == 2
    assert "does not fit blk.0.attn_q.weight" in wrong.stdout
    assert not list(here.iterdir())


def test_warnings_are_for_people(here: Path, tmp_path: Path) -> None:
    folder = adapting.simple(tmp_path / "mine", base_model_name_or_path="org/other")
    result = invoke(folder, "--base", CHECKPOINTS / "llama")
    assert "trained on org/other, and is converted for Llama" in result.stderr
    assert result.stdout.startswith("mine.gguf ")


def test_a_base_for_a_model_and_no_base_for_an_adapter_are_refused(tmp_path: Path) -> None:
    assert isinstance(invoke(BASE, "--base", "org/x").exception, BadCheckpoint)
    nameless = adapting.simple(tmp_path / "nameless")
    assert "name it with --base" in str(invoke(nameless).exception)
    assert isinstance(invoke(nameless, "--base", tmp_path / "nothing.gguf").exception, ModelNotFound)


def test_show_tells_of_an_adapter(here: Path) -> None:
    convert_adapter(ADAPTERS / "qwen2", BASE, here / "a.gguf", prove=lambda file, base: None)
    shown = CliRunner().invoke(show_command, ["a.gguf"]).stdout
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert lines["adapter"] == "lora for Qwen2"
    assert lines["adapts"] == "8 weights, rank 2, 3, 5"
    assert lines["proof"].startswith("equal to PEFT's merge in 8 weights (")
    assert "template" not in lines
    facts = json.loads(CliRunner().invoke(show_command, ["a.gguf", "--json"]).stdout)["adapter"]
    assert (facts["base"], facts["ranks"], facts["weights"]) == ("Qwen2", [2, 3, 5], 8)


# ---- the hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pull(tmp_path: Path) -> Iterator[Puller]:
    with puller(tmp_path / "disk") as pull:
        pull.hub.add(NAME, _files(CHECKPOINTS / "llama"))
        pull.hub.add("org/adapter", {**_files(ADAPTERS / "llama", base_model_name_or_path=NAME), "x.bin": b"no"})
        yield pull


@pytest.fixture
def hub(pull: Puller) -> FakeHub:
    return pull.hub


def _files(folder: Path, **config: Any) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if config:
        old = json.loads(files["adapter_config.json"])
        files["adapter_config.json"] = json.dumps({**old, **config}).encode()
    return files


def library(pull: Puller, *, offline: bool = False) -> Library:
    return Library(pull.cache, None if offline else Hub(pull.hub.endpoint, None, first_wait_s=0.001))


def test_an_adapter_of_the_hub_needs_no_weights_of_its_base(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/plain", _files(ADAPTERS / "qwen2", base_model_name_or_path="org/base"))
    hub.add("org/base", _files(BASE))
    folder = adapter_folder("org/plain", library=library(pull))
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with base_of(folder, None, library=library(pull)) as base:
        done = convert_adapter(folder, base, tmp_path / "a.gguf")
    assert (done.base, done.architecture, done.warnings) == ("Base", "qwen2", ())
    assert not [file for file in pull.files() if "base" in file and file.endswith(f"/{WEIGHTS}")]
    metadata = gguf.read(tmp_path / "a.gguf").metadata
    assert metadata["general.base_model.0.repo_url"] == "https://huggingface.co/org/base"
    assert metadata["general.name"] == "Plain"


def test_copies_of_the_bases_weights_are_compared_with_the_whole_base(pull: Puller, tmp_path: Path) -> None:
    folder = adapter_folder("org/adapter", library=library(pull))
    assert folder is not None
    with base_of(folder, None, library=library(pull)) as base:
        assert (base / WEIGHTS).read_bytes() == (CHECKPOINTS / "llama" / WEIGHTS).read_bytes()
        assert convert_adapter(folder, base, tmp_path / "a.gguf").merge.weights == 16


def test_offline_what_is_here_is_enough(pull: Puller) -> None:
    assert adapter_folder(NAME, library=library(pull)) is None
    with pytest.raises(HubError):
        adapter_folder("org/adapter", library=library(pull, offline=True))
    folder = adapter_folder("org/adapter", library=library(pull))
    assert adapter_folder("org/adapter", library=library(pull, offline=True)) == folder


def test_pulling_an_adapter_says_what_to_do_instead(pull: Puller, hub: FakeHub) -> None:
    with pytest.raises(BadCheckpoint, match="org/adapter holds an adapter, not a whole model") as caught:
        pull("org/adapter")
    assert "ingle convert org/adapter" in caught.value.hint
    hub.add("org/empty", {"adapter_config.json": b"{}"})
    with pytest.raises(BadCheckpoint, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        adapter_folder("org/empty", library=library(pull))


def test_a_base_that_cannot_be_judged_is_told_of(pull: Puller, hub: FakeHub, tmp_path: Path) -> None:
    folder = adapting.simple(tmp_path / "a", base_model_name_or_path="org/gone")
    with pytest.raises(HubError, match="org/gone"), base_of(folder, None, library=library(pull)):
        pass
    hub.add("org/odd", {**_files(BASE), "config.json": b'{"architectures": ["OddModel"]}'})
    with base_of(folder, "org/odd", library=library(pull)) as base, pytest.raises(UnsupportedModel, match="OddModel"):
        convert_adapter(folder, base, tmp_path / "a.gguf")


# ---- options ---------------------------------------------------------------------------------------------------


@load_options
def collected(options: LoadOptions) -> LoadOptions:
    return options


def test_lora_options_are_files_with_a_scale() -> None:
    import click

    command = click.command()(collected)
    texts = ["a.gguf", "b.gguf=0.5", "c=d.gguf", "e=f.gguf=-2"]
    arguments = [part for text in texts for part in ("--lora", text)]
    options = command.main(arguments, standalone_mode=False)
    assert options.adapters == (
        AdapterFile("a.gguf"),
        AdapterFile("b.gguf", 0.5),
        AdapterFile("c=d.gguf"),
        AdapterFile("e=f.gguf", -2.0),
    )
    assert [adapter.name for adapter in options.adapters] == ["a", "b", "c=d", "e=f"]
    for wrong in ("=0.5", f"a.gguf={math.inf}", "a.gguf=nan"):
        with pytest.raises(click.BadParameter, match="FILE=SCALE"):
            command.main(["--lora", wrong], standalone_mode=False)


# ---- the server ------------------------------------------------------------------------------------------------


def test_a_model_is_listed_with_each_of_its_adapters() -> None:
    installed = Installed("bard", "/models/bard.gguf", 5, 7)
    adapters = (AdapterFile("x/pirate.gguf"), AdapterFile("y/poet.gguf", 0.5))
    given = with_adapters([Given("./bard.gguf", installed)], adapters)
    catalog = StoreCatalog(Store(), LoadOptions(adapters=adapters), given)
    assert [model.name for model in catalog.list()] == ["bard", "bard:pirate", "bard:poet"]
    assert catalog.find("bard").adapters == ()
    assert catalog.find("./bard.gguf:poet").adapters == ("poet",)
    with pytest.raises(ModelNotFound, match="bard:nobody"):
        catalog.find("bard:nobody")
    data = listing(catalog.list(), {})["data"]
    assert [model["ingle"].get("adapters") for model in data] == [None, ["pirate"], ["poet"]]
    assert with_adapters([Given("bard", installed)], ()) == [Given("bard", installed)]


def test_a_model_and_its_adapters_are_one_copy_in_memory() -> None:
    class Adapted(FakeCatalog):
        def find(self, name: str) -> Installed:
            base, _, adapter = name.partition(":")
            return Installed(name, "a.gguf", 1, 1, (adapter,) if adapter else (), base)

    async def main() -> None:
        catalog = Adapted("a")
        pool = Pool(catalog, max_models=1)
        for name, adapters in (("a:x", ("x",)), ("a", ()), ("a:y", ("y",))):
            lease = await pool.lease(name)
            assert lease.name == name
            assert catalog.model.adapters == adapters
            lease.release()
        assert len(catalog.loads) == 1
        assert list(pool.loaded()) == ["a"]

    asyncio.run(main())


def test_an_adapter_is_not_quantized(here: Path) -> None:
    convert_adapter(ADAPTERS / "qwen2", BASE, here / "a.gguf")
    with pytest.raises(InputError, match="is an adapter"):
        quantize(here / "a.gguf", here / "b.gguf", "Q8_0")


def test_a_base_that_cannot_be_found_by_its_name_asks_for_base(here: Path) -> None:
    code, _, complaint = finished("convert", ADAPTERS / "llama", "-o", here / "a.gguf")
    assert code == InputError.exit_code
    assert "was trained on 'llama'" in complaint and "--base" in complaint


def test_lora_needs_its_one_model() -> None:
    code, _, complaint = finished("serve", "--lora", "a.gguf")
    assert code == BadRequest.exit_code
    assert "--lora needs one MODEL" in complaint


def test_the_api_answers_with_and_without(tmp_path: Path) -> None:
    convert(BASE, tmp_path / "tiny.gguf", "f32")
    convert_adapter(ADAPTERS / "qwen2", BASE, tmp_path / "poet.gguf")
    asked: Any = [{"role": "user", "content": "Shall I compare thee"}]
    arguments = (tmp_path / "tiny.gguf", "--lora", tmp_path / "poet.gguf", "--kv-type", "f32", "--threads", "1")
    with ingle("serve", *arguments, "--port", "0", "--log-level", "warning") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=60)
        names = [model.id for model in client.models.list().data]
        answers = {
            name: client.chat.completions.create(model=name, messages=asked, temperature=0, max_tokens=12)
            for name in ("tiny", "tiny:poet")
        }
        code, shown, _ = finished("ps", "--url", url)
        process.terminate()
        process.communicate(timeout=60)
    assert names == ["tiny", "tiny:poet"]
    assert {name: answer.model for name, answer in answers.items()} == {"tiny": "tiny", "tiny:poet": "tiny:poet"}
    texts = [answer.choices[0].message.content for answer in answers.values()]
    assert texts[0] != texts[1]
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()] == ["NAME", "tiny", "tiny:poet"]
    code, text, _ = finished("run", *arguments, asked[0]["content"], "--temp", "0", "--max-tokens", "12")
    assert (code, text) == (0, f"{texts[1]}\n")
    code, _, complaint = finished("run", tmp_path / "poet.gguf", "x")
    assert code == InputError.exit_code
    assert "ingle run BASE --lora poet.gguf" in complaint
    code, _, complaint = finished("run", tmp_path / "tiny.gguf", "--lora", tmp_path / "tiny.gguf", "x")
    assert code == InputError.exit_code
    assert "of type model, not a LoRA adapter" in complaint
