"""``ingle show``: what is known of a model, from its manifest and its file, without loading it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..store.manifest import Entry
from .display import emit_fields, emit_json, human_size
from .pull import as_record, how

if TYPE_CHECKING:
    from ...convert.gguf import GGUF
    from ..proof import Proof

TEMPLATE_KEY = "tokenizer.chat_template"
NOT_OURS = "none: it was not converted here"
VERDICT_KEY = "ingle.tokenizer.verdict"
PARTS = {"imatrix": "importance matrix", "mmproj": "vision part of a model"}
"""By ``general.type``: files that are no models by themselves; adapters have lines of their own."""


@click.command("show", short_help="Show what is known of a model.")
@click.argument("name")
@click.option("--template", is_flag=True, help="Print the chat template, and nothing else.")
@click.option("--metadata", is_flag=True, help="Print all metadata of the file (long arrays by their length).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, template: bool, metadata: bool, as_json: bool) -> None:
    """Show what is known of NAME: a model that is here, or a GGUF file."""
    from ...convert import gguf
    from ..store import receipt
    from ..store.store import Store

    store = Store()
    entry = store.find(name)
    file = gguf.read(entry.path)
    if template:
        click.echo(_text(file, TEMPLATE_KEY))
    elif metadata:
        values = {key: _short(value) for key, value in file.metadata.items()}
        emit_json(values) if as_json else emit_fields({key: str(value) for key, value in values.items()})
    elif as_json:
        emit_json(as_record(entry) | describe(entry, file) | {"receipt": receipt.of(entry, file, store)})
    else:
        emit_fields(_fields(entry, describe(entry, file)) | receipt_fields(receipt.of(entry, file, store)))


def describe(entry: Entry, file: GGUF) -> dict[str, Any]:
    """What the file says of itself. Its proof is that of the conversion, whatever it was quantized to since."""
    from .. import proof
    from ..store import receipt

    architecture = _text(file, "general.architecture")
    adapter = _adapter(file)
    return {
        **({"adapter": adapter} if adapter else {}),
        "architecture": architecture,
        "title": _text(file, "general.name"),
        "kind": _text(file, "general.type"),
        "type": entry.type or _type(file),
        "parameters": _parameters(entry),
        "context_length": _short(file.metadata.get(f"{architecture}.context_length")),
        "vocabulary": _vocabulary(file),
        "tokenizer": _text(file, VERDICT_KEY),
        "chat_template": TEMPLATE_KEY in file.metadata,
        "licence": _text(file, "general.license"),
        "proof": entry.proof or proof.of(file.metadata),
        "importance": receipt.importance(file.metadata),
    }


def _fields(entry: Entry, facts: dict[str, Any]) -> dict[str, str]:
    """The lines for people; what is unknown is left out."""
    context = facts["context_length"]
    lines = {
        "name": entry.name,
        "title": facts["title"],
        "kind": PARTS.get(facts["kind"], ""),
        **_adapter_fields(facts.get("adapter")),
        "architecture": facts["architecture"],
        "parameters": f"{facts['parameters']:,}",
        "type": f"{facts['type']} ({entry.reason})",
        "size": human_size(entry.size_bytes) + (f" in {len(entry.files)} files" if len(entry.files) > 1 else ""),
        "context": f"{context:,} tokens" if isinstance(context, int) else "",
        "vocabulary": f"{facts['vocabulary']:,} tokens" if facts["vocabulary"] else "",
        "tokenizer": f"llama.cpp's: {facts['tokenizer']}" if facts["tokenizer"] else "",
        "template": _template(facts),
        "importance": "" if facts["kind"] == "imatrix" else _importance_line(facts["importance"] or {}),
        "licence": facts["licence"] or "not stated",
        "source": f"{entry.source.location} {entry.source.version[:12]}".rstrip(),
        "file": f"{entry.path} ({how(entry)})",
        "sha256": entry.sha256,
        "vision": f"{entry.projector.path} ({human_size(entry.projector.size_bytes)})" if entry.projector else "",
        "proof": facts["adapter"]["proof"] or NOT_OURS if "adapter" in facts else _proof(entry, facts["proof"]),
        "since": f"{entry.created} (ingle {entry.ingle})" if entry.created else "",
    }
    return {key: value for key, value in lines.items() if value}


def receipt_fields(found: Mapping[str, Any]) -> dict[str, str]:
    """The lines of a receipt that :func:`_fields` does not have."""
    source, files = found["source"], found["source"]["files"]
    made_of = source["repository"] or "a folder"
    revision = f" at {source['revision'][:12]}" if source["revision"] else ""
    lines = {
        "made of": f"{made_of}{revision}, {len(files)} files of known SHA-256" if files else "",
        "made by": f"ingle {found['made_by']}" if found["made_by"] else "",
        "types": ", ".join(f"{number} {name}" for name, number in found["types"].items()),
        **{f"measured {at}": measured(record) for at, record in enumerate(found["measured"], 1)},
    }
    return {key: value for key, value in lines.items() if value}


def measured(record: Mapping[str, Any]) -> str:
    """One line: ``perplexity 12.3 ± 0.1, KLD 0.012 ± 0.001 against base.gguf; on wiki.txt, 2026-11-25, …``."""
    parts = [f"perplexity {record['perplexity']['value']:.4f} ± {record['perplexity']['error']:.4f}"]
    if far := record.get("distance"):
        kld, base = far["kld"], record["base"]
        parts.append(f"KLD {kld['value']:.5f} ± {kld['error']:.5f} against {base['name']}")
    if speed := record.get("tokens_per_second"):
        parts.append(f"{speed:,.0f} tokens/s read")
    machine = record["machine"]
    where = f"on {record['on']['name']}, {record['date'][:10]}, {machine['cpu']}, {machine['threads']} threads"
    return f"{', '.join(parts)}; {where}"


def _adapter(file: GGUF) -> dict[str, Any]:
    """What is known of an adapter; empty for a model."""
    from ...convert import adapter

    if file.metadata.get(adapter.TYPE_KEY) != adapter.LORA:
        return {}
    ranks = {info.shape[-1] for name, info in file.tensors.items() if name.endswith(".lora_b")}
    return {
        "kind": _text(file, "adapter.type"),
        "base": _text(file, adapter.BASE_NAME_KEY),
        "ranks": sorted(ranks),
        "weights": len(file.tensors) // 2,
        "proof": adapter.described(file.metadata),
    }


def _adapter_fields(adapter: dict[str, Any] | None) -> dict[str, str]:
    if adapter is None:
        return {}
    ranks = ", ".join(map(str, adapter["ranks"]))
    return {
        "adapter": f"{adapter['kind']} for {adapter['base'] or 'a base it does not name'}",
        "adapts": f"{adapter['weights']:,} weights, rank {ranks}",
    }


def _template(facts: dict[str, Any]) -> str:
    if "adapter" in facts or facts["kind"] in PARTS:
        return ""
    return "yes (--template prints it)" if facts["chat_template"] else "none: a base model"


def _proof(entry: Entry, found: Proof | None) -> str:
    from ..proof import described

    if found is None:
        return NOT_OURS
    whose = "" if entry.built else " (says the file)"
    return f"its conversion was equal to the checkpoint in {described(found)}{whose}"


def _importance_line(found: dict[str, Any]) -> str:
    if not found:
        return ""
    line = f"{found.get('weights', '?')} weights, {found.get('chunks', '?')} chunks of {found.get('dataset', 'a text')}"
    return line + (f", sha256 {found['sha256'][:12]}" if "sha256" in found else "")


def _type(file: GGUF) -> str:
    from ...quantize.types import TYPES

    wanted = file.metadata.get("general.file_type")
    return next((kind.name for kind in TYPES.values() if kind.native_id == wanted), "unknown")


def _parameters(entry: Entry) -> int:
    from ...convert import gguf

    files = [gguf.read(file.path) for file in entry.files]
    return sum(math.prod(tensor.shape) for file in files for tensor in file.tensors.values())


def _vocabulary(file: GGUF) -> int:
    tokens: Any = file.metadata.get("tokenizer.ggml.tokens", ())
    return len(tokens)


def _text(file: GGUF, key: str) -> str:
    return str(file.metadata.get(key, ""))


def _short(value: Any) -> Any:
    """A value as JSON takes it; a long array by its length."""
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "__len__"):
        return f"[{len(value):,} values]" if len(value) > 8 else [_short(item) for item in value]
    return value.item() if hasattr(value, "item") else value
