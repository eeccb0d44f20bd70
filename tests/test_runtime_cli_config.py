"""``ingle serve --config``: what the file says reaches the server; what it should not say is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anthropic
import click
import ollama
import openai
import pytest
from click.core import ParameterSource
from ingle.convert.errors import InputError
from ingle.runtime.cli import serve as serve_module
from ingle.runtime.cli.config import Config, Reader, line_of, names_of, of
from ingle.runtime.cli.serve import serve_command
from shell import finished, ingle

DOCS = Path(__file__).parent.parent / "docs" / "config.md"
EVERYTHING = """
[server]
host = "127.0.0.1"
port = 0
api-key = "k"
allowed-hosts = ["a", "b"]
max-models = 3
keep-alive = "10m"
strict = true
admin = false
drain-timeout = 5
log-level = "warning"

[load]
ctx = 2048
threads = 2
mmap = false
itl-target = 0.5

[sampling]
temperature = 0.5
top-k = 7

[models.chat]
path = "./a.gguf"
preload = true
keep-alive = 60
ctx = 1024
lora = ["poet.gguf", "pirate.gguf=0.5"]
sampling = { top-p = 0.9, min-p = 0.1 }

[models."org/other:Q8_0"]

[aliases]
"gpt-4o" = "chat"
"""


def read(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "c.toml"
    path.write_text(text, "utf-8")
    return Reader(path, click.Context(serve_command)).config()


def test_everything_is_read(tmp_path: Path) -> None:
    config = read(EVERYTHING, tmp_path)
    assert config.server["allowed_hosts"] == ["a", "b"] and config.server["keep_alive_s"] == "10m"
    assert config.load == {"context_length": 2048, "threads": 2, "mmap": False, "itl_target_s": 0.5}
    assert config.sampling == {"temperature": 0.5, "top_k": 7}
    assert config.aliases == {"gpt-4o": "chat"}
    chat, other = config.models
    assert (chat.path, chat.preload, chat.keep_alive_s) == (str(tmp_path / "a.gguf"), True, 60)
    assert [(one.path, one.scale) for one in chat.load["adapters"]] == [
        (str(tmp_path / "poet.gguf"), 1.0),
        (str(tmp_path / "pirate.gguf"), 0.5),
    ]
    assert chat.sampling == {"top_p": 0.9, "min_p": 0.1}
    assert (other.path, other.preload, other.keep_alive_s) == ("org/other:Q8_0", False, None)


WRONG = [
    ("x = 1", 1, "x is not known", "server, load, sampling, models, aliases"),
    ("\n# a\n[server]\nhst = 'x'", 4, "server.hst is not known", "did you mean host?"),
    ("[server]\nmax_models = 2", 2, "server.max_models is not known", "did you mean max-models?"),
    ("[server]\nctx = 2", 2, "server.ctx is not known", "ctx belongs in [load] or [models.NAME]"),
    ("[load]\nlora = ['a.gguf']", 2, "load.lora is not known", "lora belongs in [models.NAME]"),
    ("[sampling]\nseed = 3", 2, "sampling.seed is not known", "known here: temperature, top-k, top-p, min-p"),
    ("[models.m]\nctxx = 2", 2, "models.m.ctxx is not known", "did you mean ctx?"),
    (
        "[models.'a/b']\n\n[models.'a/b'.sampling]\ntop-x = 2",
        4,
        'models."a/b".sampling.top-x is not',
        "did you mean top-",
    ),
    ("[server]\nport = 70000", 2, "server.port 70000 is not in the range", ""),
    ("[server]\nport = '80'", 2, "server.port must be a whole number", ""),
    ("[server]\nport = true", 2, "server.port must be a whole number", ""),
    ("[server]\nstrict = 1", 2, "server.strict must be true or false", ""),
    ("[server]\nallowed-hosts = 'a'", 2, "server.allowed-hosts must be a list of a text", ""),
    ("[server]\nkeep-alive = 'soon'", 2, "server.keep-alive keep_alive is a duration", ""),
    ("[server]\nlog-level = 'loud'", 2, "server.log-level 'loud' is not one of", ""),
    ("[load]\nthreads = 0", 2, "load.threads 0 is not in the range", ""),
    ("[load]\nkv-type = 'q3'", 2, "load.kv-type 'q3' is not one of", ""),
    ("[sampling]\ntemperature = -1", 2, "sampling.temperature -1.0 is not in the range", ""),
    ("server = 3", 1, "server must be a table", ""),
    ("[models]\na = 3", 2, "models.a must be a table", ""),
    ("[models.a]\npreload = 'yes'", 2, "models.a.preload must be true or false", ""),
    ("[models.a]\nmmproj = 'absent.gguf'", 2, "does not exist", ""),
    ("[models.a]\nlora = [\n  'x.gguf',\n  3,\n]", 2, "models.a.lora must be a list of a text", ""),
    ("[aliases]\na = 3", 2, "aliases.a must be the name of a model", ""),
]


@pytest.mark.parametrize(("text", "line", "why", "hint"), WRONG)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, why: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(text, tmp_path)
    assert caught.value.message.startswith(f"{tmp_path / 'c.toml'}, line {line}: ")
    assert why in caught.value.message and hint in caught.value.hint


def test_what_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.toml is not TOML: .*line 2"):
        read("[server]\nport = = 1\n", tmp_path)
    (tmp_path / "c.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        Reader(tmp_path / "c.toml", click.Context(serve_command)).config()
    with pytest.raises(InputError, match="cannot read"):
        Reader(tmp_path / "absent.toml", click.Context(serve_command)).config()


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("a.b = 1\n[c]\nd = '''\nx = 1\n'''\nx = 2", ("c", "x"), 6),
        ("a.b = 1\n", ("a", "b"), 1),
        ("\n\na = [\n 1,\n]\n", ("a",), 3),
        ("a = { b = 1, c = 2 }", ("a", "c"), 1),
        ("a = 1", ("b",), None),
    ],
)
def test_lines_are_found_in_every_way_of_writing(text: str, place: tuple[str, ...], line: int | None) -> None:
    assert line_of(text, place) == line


def context_of(arguments: list[str]) -> click.Context:
    return serve_command.make_context("serve", arguments)


def test_the_command_line_counts_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.toml"
    path.write_text(EVERYTHING, "utf-8")
    given = context_of(["--config", str(path), "--port", "9", "--ctx", "512"]).params
    assert (given["port"], given["max_models"], given["context_length"], given["threads"]) == (9, 3, 512, 2)
    assert (given["keep_alive_s"], given["allowed_hosts"], given["mmap"]) == (600, ("a", "b"), False)
    monkeypatch.setenv("INGLE_API_KEY", "from the environment")
    assert context_of(["--config", str(path)]).params["api_key"] == "from the environment"


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert context_of([]).params["port"] == 8080
    (tmp_path / "ingle").mkdir()
    (tmp_path / "ingle" / "config.toml").write_text("[server]\nport = 1")
    context = context_of([])
    assert context.params["port"] == 1 and of(context).path == tmp_path / "ingle" / "config.toml"
    assert context.get_parameter_source("port") is ParameterSource.DEFAULT_MAP
    assert context_of(["--config", "none"]).params["port"] == 8080
    monkeypatch.setenv("INGLE_CONFIG", str(tmp_path / "absent.toml"))
    with pytest.raises(InputError, match=r"absent\.toml"):
        context_of([])


def test_the_page_has_every_key_and_no_other() -> None:
    page = DOCS.read_text("utf-8")
    known = {name: set(keys) for name, keys in names_of(serve_command).items()}
    own = {"path", "preload", "keep-alive", "sampling"}
    for heading, keys in {
        "[server]": known["server"],
        "[load]": known["load"],
        "[sampling]": known["sampling"],
        "[models.NAME]": (known["model"] - known["load"]) | own,
    }.items():
        section = page.split(f"## `{heading}`\n")[1].split("\n## ")[0]
        cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
        assert {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)} == keys, heading


@pytest.fixture(scope="module")
def url(bard_gguf: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of which the file says everything: two names and an alias of the example model."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "bard.gguf").symlink_to(bard_gguf["f32"])
    (folder / "c.toml").write_text(
        """
        [server]
        port = 0
        log-level = "warning"
        [load]
        kv-type = "f32"
        [models.bard]
        path = "bard.gguf"
        preload = true
        ctx = 256
        keep-alive = "1h"
        [models.bard.sampling]
        temperature = 0
        [aliases]
        "gpt-4o" = "bard"
        """,
        "utf-8",
    )
    with ingle("serve", "--config", folder / "c.toml") as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def test_a_configured_model_answers_to_its_name_and_its_alias_in_every_dialect(url: str) -> None:
    asked: Any = [{"role": "user", "content": "Who goes there?"}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        models = {model.id: model.model_extra["ingle"] for model in client.models.list() if model.model_extra}
        answers = {
            name: client.chat.completions.create(model=name, messages=asked, max_tokens=8).choices[0].message.content
            for name in ("bard", "gpt-4o")
        }
        response = client.responses.create(model="gpt-4o", input="Who goes there?", max_output_tokens=8)
    assert set(models) == {"bard", "gpt-4o"}
    assert models["gpt-4o"]["alias_of"] == "bard" and models["gpt-4o"]["loaded"] is True
    assert models["bard"]["context_length"] == 256 and "expires_at" in models["bard"]
    assert models["bard"]["sampling"]["temperature"] == 0
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as speaker:
        message: Any = speaker.messages.create(model="gpt-4o", messages=asked, max_tokens=8)
    with ollama.Client(host=url) as other:
        chat = other.chat("gpt-4o:latest", asked, options={"num_predict": 8})
    texts = {*answers.values(), response.output_text, message.content[0].text, chat.message.content}
    assert len(texts) == 1, "greedy by the file, so all are the same"
    assert message.model == chat.model == "gpt-4o"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("[aliases]\n'bard' = 'bard'", "the alias bard is the name of a model already"),
        ("[aliases]\n'a' = 'nobody'", "there is no model 'nobody' here"),
        ("[aliases]\n'a' = 'bard'\n'b' = 'a'", "there is no model 'a' here"),
        ("[models.other]\npath = 'absent.gguf'", "absent.gguf"),
        ("[models.bard.sampling]\nhot = 1", "line 5: models.bard.sampling.hot is not known"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_loaded(
    more: str, complaint: str, bard_gguf: Mapping[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(f"[models.bard]\npath = '{bard_gguf['f32']}'\n\n{more}", "utf-8")
    code, out, said = finished("serve", "--config", tmp_path / "c.toml", "--port", "0")
    assert (code, out) == (2, "") and complaint in said


def test_options_of_one_model_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters on the command line are for the model that is named there, and for no other of the file."""
    path = tmp_path / "c.toml"
    path.write_text("[models.a]\nlora = ['x.gguf']\nctx = 7\n[models.b]\nctx = 9\n", "utf-8")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "ingle.runtime.server.catalog.configured", lambda name, path, options, *rest: seen.update({name: options}) or []
    )
    context = context_of(["--config", str(path), "b", "--lora", "y.gguf", "--threads", "3"])
    with context:
        config = of(context)
        options = serve_module.LoadOptions(
            **{name: context.params[name] for name in ("adapters", "threads", "context_length")}
        )
        serve_module._configured(config, ("b",), options, None, lambda *_: None)  # type: ignore[arg-type]
    assert {name: [one.name for one in given.adapters] for name, given in seen.items()} == {"a": ["x"], "b": ["y"]}
    assert {name: (given.context_length, given.threads) for name, given in seen.items()} == {"a": (7, 3), "b": (9, 3)}
