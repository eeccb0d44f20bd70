"""Chat templates of a checkpoint: where they are kept, and the keys they get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BadCheckpoint
from .gguf import Value
from .jsonfile import read_bytes, read_object
from .report import Item

FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
PROCESSOR_FILE = "chat_template.json"
DEFAULT = "default"
KEY = "tokenizer.chat_template"
NAMES_KEY = "tokenizer.chat_templates"
MAX_BYTES = 256 << 10


def find(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name. Files of their own replace what tokenizer_config.json says, as in transformers; so does the
    file in which transformers 4 kept the template of a model with vision.

    Raises:
        BadCheckpoint: one is not text, or larger than ``MAX_BYTES``.
    """
    files = {DEFAULT: folder / FILE, **{path.stem: path for path in sorted((folder / FOLDER).glob("*.jinja"))}}
    found = {name: _text(path) for name, path in files.items() if path.is_file()}
    return found or of_processor(folder) or _from_config(tokenizer_config.get("chat_template"))


def of_processor(folder: Path) -> dict[str, str]:
    """The template that a processor of transformers 4 brought, by the name ``default``; empty where there is none."""
    path = folder / PROCESSOR_FILE
    if not path.is_file():
        return {}
    template = read_object(path).get("chat_template")
    if not isinstance(template, str):
        raise BadCheckpoint(f"{path} has no chat_template that is a text")
    return {DEFAULT: _within_limit(DEFAULT, template)}


def metadata(templates: Mapping[str, str]) -> dict[str, Value]:
    """The keys of llama.cpp: the default template, then each other one under its name, and the list of names."""
    values: dict[str, Value] = {KEY if name == DEFAULT else f"{KEY}.{name}": text for name, text in templates.items()}
    named = [name for name in templates if name != DEFAULT]
    return {**values, NAMES_KEY: named} if named else values


def from_metadata(values: Mapping[str, Value]) -> dict[str, str]:
    """The templates of a GGUF file, by name: the inverse of :func:`metadata`."""
    keys = {DEFAULT: KEY, **{key.removeprefix(f"{KEY}."): key for key in values if key.startswith(f"{KEY}.")}}
    return {name: text for name, key in keys.items() if isinstance(text := values.get(key), str)}


def item(templates: Mapping[str, str]) -> Item:
    if not templates:
        return Item("chat template", "warn", "none: the model completes text, it cannot chat")
    return Item(
        "chat template", "ok", ", ".join(f"{name} ({len(text):,} characters)" for name, text in templates.items())
    )


def _from_config(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = [{"name": DEFAULT, "template": value}]
    if isinstance(value, Mapping):
        value = [{"name": name, "template": text} for name, text in value.items()]
    try:
        return {entry["name"]: _within_limit(entry["name"], entry["template"]) for entry in value}
    except (TypeError, KeyError) as error:
        raise BadCheckpoint("chat_template of tokenizer_config.json is neither a text nor a list of them") from error


def _text(path: Path) -> str:
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadCheckpoint(f"{path} is not UTF-8 text") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _within_limit(name: str, template: str) -> str:
    if len(template.encode()) > MAX_BYTES:
        raise BadCheckpoint(f"the chat template {name!r} has more than {MAX_BYTES:,} bytes")
    return template
