"""The configuration of ``ingle serve``: a TOML file whose keys are the options of the command line, and tables of
models, sampling and aliases. What is not known is refused with its line; the command line counts before the file."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from ...convert.errors import InputError

KEY = "ingle.config"
SECTIONS = ("server", "load", "sampling", "models", "aliases")
SAMPLING = ("temperature", "top_k", "top_p", "min_p")
OF_ONE_MODEL = ("adapters", "mmproj", "draft")
LISTS = {"allowed-host": "allowed-hosts", "further-key": "further-keys"}
"""An option that may be given several times is a list here."""

NUMBERS_OR_TEXTS = ("keep_alive_s", "cache_ram_bytes", "cache_disk_bytes")
Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """``[models.NAME]``. load: fields of ``LoadOptions``, checked. preload: loaded before the server is ready."""

    name: str
    path: str
    preload: bool = False
    keep_alive_s: float | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """server, load: parameters of the command as the file has them, which click checks again."""

    path: Path | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)
    models: tuple[ModelConfig, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


def default_path() -> Path:
    """``INGLE_CONFIG``, or ``ingle/config.toml`` in the XDG folder for configurations (``~/.config``)."""
    if chosen := os.environ.get("INGLE_CONFIG"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "ingle" / "config.toml"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config``: its values become defaults of the command's options; ``of`` finds it."""

    def read(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        asked = value is not None or "INGLE_CONFIG" in os.environ
        path = Path(value) if value is not None else default_path()
        config = Reader(path, context).config() if value != "none" and (asked or path.exists()) else Config()
        context.meta[KEY] = config
        context.default_map = {**(context.default_map or {}), **config.load, **config.server}

    return click.option(
        "--config",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="A TOML file with options, models and aliases; none for none. [default: ~/.config/ingle/config.toml]",
    )(command)


def of(context: click.Context) -> Config:
    """What ``--config`` read."""
    config: Config = context.meta[KEY]
    return config


def names_of(command: click.Command) -> Mapping[str, Mapping[str, click.Parameter]]:
    """The keys of each section that stands for options, with the parameter that each is."""
    from ..options import LoadOptions

    options = {_key(one): one for one in command.params if isinstance(one, click.Option) and one.expose_value}
    load = {key: one for key, one in options.items() if one.name in LoadOptions.__dataclass_fields__}
    return {
        "server": {key: one for key, one in options.items() if key not in load},
        "load": {key: one for key, one in load.items() if one.name not in OF_ONE_MODEL},
        "sampling": _sampling(),
        "model": load,
    }


class Reader:
    """Reads one file for the command of ``context``. Everything that it raises is an :class:`InputError` that names the
    file, the line and the key."""

    def __init__(self, path: Path, context: click.Context) -> None:
        self._path = path
        self._context = context
        self._known = names_of(context.command)

    def config(self) -> Config:
        """The file, checked to its last value."""
        try:
            self._text = self._path.read_text("utf-8")
            tree = tomllib.loads(self._text)
        except OSError as error:
            raise InputError(
                f"cannot read {self._path}: {error.strerror}", hint="--config none goes without"
            ) from error
        except UnicodeDecodeError as error:
            raise InputError(f"{self._path} is not UTF-8 (byte {error.start})") from error
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{self._path} is not TOML: {error}") from error
        self._refuse_unknown((), tree, SECTIONS)
        for name in SECTIONS:
            self._table((name,), tree.get(name, {}))
        server, load = (self._options((name,), tree.get(name, {}), name) for name in ("server", "load"))
        return Config(
            self._path,
            {name: raw for name, (raw, _) in server.items()},
            {name: raw for name, (raw, _) in load.items()},
            self._sampling(("sampling",), tree.get("sampling", {})),
            tuple(self._model(name, table) for name, table in tree.get("models", {}).items()),
            {name: self._text_of(("aliases", name), value) for name, value in tree.get("aliases", {}).items()},
        )

    def _model(self, name: str, table: Any) -> ModelConfig:
        place = ("models", name)
        own = {"path": str, "preload": bool, "keep-alive": object, "sampling": dict}
        self._table(place, table)
        self._refuse_unknown(place, table, [*own, *self._known["model"]])
        for key, kind in own.items():
            if key in table and not isinstance(table[key], kind):
                raise self._wrong((*place, key), f"must be {_said(kind)}")
        keep = self._options(place, {k: v for k, v in table.items() if k == "keep-alive"}, "server")
        load = self._options(place, {k: v for k, v in table.items() if k not in own}, "model")
        return ModelConfig(
            name,
            self._beside(table.get("path", name)),
            table.get("preload", False),
            keep["keep_alive_s"][1] if keep else None,
            {field: value for field, (_, value) in load.items()},
            self._sampling((*place, "sampling"), table.get("sampling", {})),
        )

    def _sampling(self, place: Place, table: Any) -> Mapping[str, float]:
        return {name: value for name, (_, value) in self._options(place, table, "sampling").items()}

    def _options(self, place: Place, table: Mapping[str, Any], section: str) -> dict[str, tuple[Any, Any]]:
        """By parameter: what the file has, and what click makes of that."""
        known = self._known[section]
        self._refuse_unknown(place, table, known)
        return {str(known[key].name): self._value((*place, key), known[key], raw) for key, raw in table.items()}

    def _value(self, place: Place, parameter: click.Parameter, raw: Any) -> tuple[Any, Any]:
        kinds = _kinds(parameter)
        several = isinstance(parameter, click.Option) and parameter.multiple
        for item in raw if several and isinstance(raw, list) else [raw]:
            if (several and not isinstance(raw, list)) or type(item) not in kinds:
                raise self._wrong(place, f"must be {'a list of ' if several else ''}{' or '.join(map(_said, kinds))}")
        raw = self._resolved(parameter, raw)
        try:
            return raw, parameter.process_value(self._context, raw)
        except click.BadParameter as error:
            raise self._wrong(place, error.message) from error

    def _resolved(self, parameter: click.Parameter, raw: Any) -> Any:
        """Files are beside this one, wherever the command is run."""
        if parameter.name == "adapters":
            return [self._beside(text, always=True) for text in raw]
        if parameter.name == "draft":
            return self._beside(raw)
        return self._beside(raw, always=True) if parameter.name == "mmproj" else raw

    def _beside(self, text: str, *, always: bool = False) -> str:
        """``always``: a file; otherwise it may be the name of a model, too, and is a path only where it says so."""
        if always or text.startswith((".", "~", "/")) or text.endswith(".gguf"):
            return str(self._path.absolute().parent / Path(text).expanduser())
        return text

    def _text_of(self, place: Place, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self._wrong(place, "must be the name of a model")
        return value

    def _table(self, place: Place, value: Any) -> None:
        if not isinstance(value, dict):
            raise self._wrong(place, "must be a table")

    def _refuse_unknown(self, place: Place, table: Mapping[str, Any], known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                raise self._wrong((*place, key), "is not known", self._advice(key, place, list(known)))

    def _advice(self, key: str, place: Place, known: list[str]) -> str:
        """The nearest known name; or the section where this one belongs."""
        homes = {"server": "server", "load": "load", "sampling": "sampling", "model": "models.NAME"}
        there = [f"[{homes[name]}]" for name, keys in self._known.items() if key in keys and place]
        if there:
            return f"{key} belongs in {' or '.join(there)}"
        near = difflib.get_close_matches(key.replace("_", "-"), known, 1, 0.5)
        return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"

    def _wrong(self, place: Place, why: str, hint: str = "") -> InputError:
        shown = ".".join(part if part.replace("-", "").replace("_", "").isalnum() else f'"{part}"' for part in place)
        line = line_of(self._text, place)
        return InputError(f"{self._path}{f', line {line}' if line else ''}: {shown} {why}", hint=hint)


def line_of(text: str, place: Place) -> int | None:
    """The line on which the value at a place begins: found by reading ever more of the file, so that it is right
    whatever way the file is written in."""
    lines = text.splitlines(keepends=True)
    begun = 0
    for count in range(1, len(lines) + 1):
        try:
            tree: Any = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value
        if _holds(tree, place):
            return (
                next(at for at in range(begun, count) if lines[at].strip() and not lines[at].lstrip().startswith("#"))
                + 1
            )
        begun = count
    return None


def _holds(tree: Any, place: Place) -> bool:
    for part in place:
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def _key(option: click.Option) -> str:
    """``--context-length``, ``--ctx`` → ``ctx``."""
    flag = [flag for flag in option.opts if flag.startswith("--")][-1].removeprefix("--")
    return LISTS.get(flag, flag)


def _sampling() -> Mapping[str, click.Parameter]:
    from .options import sampling_options

    command = click.command()(sampling_options(lambda **_: None))
    return {str(one.name).replace("_", "-"): one for one in command.params if one.name in SAMPLING}


def _kinds(parameter: click.Parameter) -> tuple[type, ...]:
    """The types of TOML that stand for a value of a parameter."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return (bool,)
    if isinstance(parameter.type, click.types.IntParamType):
        return (int,)
    if isinstance(parameter.type, click.types.FloatParamType):
        return (float, int)
    return (str, int) if parameter.name in NUMBERS_OR_TEXTS else (str,)


def _said(kind: type) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a table"}
    return names.get(kind, "a duration")
