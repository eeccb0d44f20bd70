"""Ollama's routes about models: tags, show, ps, version; pull and delete where the server allows them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from ...convert import chat_template, gguf
from .errors import Forbidden
from .ollama_fields import bare_name
from .pool import Catalog, Installed, Servable
from .posted import Posted

POLL_S = 0.1
FORBIDDEN = "this server does not let clients fetch or delete models"
LONG_VALUE = 64


class NameRequest(Posted):
    """A request about one model; ``name`` is the older word for ``model``."""

    model: Annotated[str, Field(min_length=1, max_length=512), BeforeValidator(bare_name)]
    stream: bool | None = None
    verbose: bool | None = None
    insecure: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _older_word(cls, value: Any) -> Any:
        if isinstance(value, dict) and "model" not in value and "name" in value:
            return {**{k: v for k, v in value.items() if k != "name"}, "model": value["name"]}
        return value


def version() -> dict[str, str]:
    return {"version": metadata.version("ingle")}


def tags(installed: Sequence[Installed], loaded: Mapping[str, Servable]) -> dict[str, Any]:
    return {"models": [_entry(model, loaded.get(model.place)) for model in installed]}


def running(
    installed: Sequence[Installed], loaded: Mapping[str, Servable], expiry: Mapping[str, float]
) -> dict[str, Any]:
    """``expiry``: Unix time at which an idle model is given up, for those that have one."""
    entries = []
    for model in installed:
        if (servable := loaded.get(model.place)) is not None:
            until = datetime.fromtimestamp(expiry.get(model.place, 4102444800.0), UTC).isoformat()
            window = {"context_length": servable.info.context_length}
            entries.append(_entry(model, servable) | {"expires_at": until, "size_vram": 0} | window)
    return {"models": entries}


def _entry(model: Installed, servable: Servable | None) -> dict[str, Any]:
    written = datetime.fromtimestamp(model.created, UTC).isoformat()
    digest = hashlib.sha256(f"{model.name} {model.size_bytes} {model.created}".encode()).hexdigest()
    head = {"name": model.name, "model": model.name, "modified_at": written, "size": model.size_bytes, "digest": digest}
    return head | {"details": _details(model.type, servable)}


def _details(kind: str, servable: Servable | None) -> dict[str, Any]:
    family = servable.info.architecture if servable else ""
    parameters = servable.info.parameters if servable else 0
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _short(parameters) if parameters else "",
        "quantization_level": kind,
    }


def _short(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def show(installed: Installed) -> dict[str, Any]:
    """What the file says of itself. Blocks; loads nothing."""
    from ..tasks.model import is_for_tasks

    file = gguf.read(Path(installed.target))
    templates = chat_template.from_metadata(file.metadata)
    architecture = str(file.metadata.get("general.architecture", ""))
    details = _details(installed.type, None) | {"family": architecture, "families": [architecture]}
    parameters = sum(_size(info.shape) for info in file.tensors.values())
    return {
        "modelfile": f"FROM {installed.name}",
        "parameters": "",
        "template": templates.get("default", ""),
        "license": str(file.metadata.get("general.license", "")),
        "details": details | {"parameter_size": _short(parameters)},
        "model_info": {**_plain(file.metadata), "general.parameter_count": parameters},
        "capabilities": ["embedding"] if is_for_tasks(Path(installed.target)) else _capabilities(templates, installed),
        "modified_at": datetime.fromtimestamp(installed.created, UTC).isoformat(),
    }


def _capabilities(templates: Mapping[str, str], installed: Installed) -> list[str]:
    from ..chat import Conversation

    found = ["completion"]
    if templates:
        form = Conversation(templates, {}).answer_format()
        found += ["tools"] if form.shows_tools else []
        found += ["thinking"] if form.reasoning[1] else []
    return found + (["vision"] if installed.mmproj else [])


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON; long arrays, and what belongs to the tokenizer, as null, as Ollama has it."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        number = value.tolist() if hasattr(value, "tolist") else value
        plain[key] = None if isinstance(number, list) and len(number) > LONG_VALUE else number
    return plain


def _size(shape: Sequence[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def allow(admin: bool) -> None:
    """Raise :class:`Forbidden` unless clients may change what is installed."""
    if not admin:
        raise Forbidden(FORBIDDEN, hint="start it with --admin to allow it")


async def pulled(catalog: Catalog, name: str) -> AsyncIterator[dict[str, Any]]:
    """Fetch, convert, prove and keep a model, and report on it as it goes. It goes on if the client leaves."""
    heard: list[tuple[str, int, int]] = []
    work = asyncio.create_task(asyncio.to_thread(catalog.fetch, name, lambda *news: heard.append(news)))
    work.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    yield {"status": "pulling manifest"}
    told: tuple[str, int, int] | None = None
    while not work.done():
        await asyncio.wait({work}, timeout=POLL_S)
        if heard and heard[-1] != told:
            stage, done, total = told = heard[-1]
            heard.clear()
            yield {"status": stage, "digest": stage, "total": total, "completed": done}
    work.result()
    yield {"status": "success"}


async def last_of(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async for event in events:
        last = event
    return last
