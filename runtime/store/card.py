"""The model card of a repository of GGUF files, written from their receipts and from nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import proof

MARK = "<!-- This card was written by ingle push. What is changed here is kept as long as nobody pushes again. -->"
FENCE = "---"
PIPELINES = (
    "text-generation", "image-text-to-text", "text2text-generation", "feature-extraction", "sentence-similarity",
    "text-classification", "token-classification", "question-answering", "fill-mask", "zero-shot-classification",
    "text-ranking", "summarization", "translation",
)  # fmt: skip

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
TAKEN = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
"""Plain words that YAML takes for something else."""

Receipt = Mapping[str, Any]


def write(repository: str, receipts: Sequence[Receipt], pictures: Sequence[str]) -> str:
    """README.md of ``repository``. receipts: of the models that are in it; pictures: files that show figures."""
    first = receipts[0]
    parts = [
        *_front_matter(repository, first),
        MARK,
        "",
        f"# {first['model']['title'] or repository}, as GGUF",
        "",
        *_origin(first),
        *_table(receipts),
        *_how_measured(receipts),
        *(f"![{name}]({name})" for name in pictures),
        *([""] if pictures else []),
        *_proofs(receipts),
        *_use(repository, receipts),
        *_sources(receipts),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _front_matter(repository: str, first: Receipt) -> Iterator[str]:
    model, source = first["model"], first["source"]
    fields: dict[str, Any] = {
        "license": model["license"],
        "license_name": model["license_name"],
        "license_link": model["license_link"],
        "base_model": [source["repository"]] if source["repository"] else [],
        "base_model_relation": "quantized" if source["repository"] else "",
        "quantized_by": repository.partition("/")[0],
        "pipeline_tag": pipeline(model),
        "language": model["languages"],
        "tags": [*dict.fromkeys(["gguf", "ingle", *(tag for tag in model["tags"] if tag not in PIPELINES)])],
    }
    yield FENCE
    for key, value in fields.items():
        if isinstance(value, list):
            yield from ([f"{key}:", *(f"- {_scalar(item)}" for item in value)] if value else [])
        elif value:
            yield f"{key}: {_scalar(value)}"
    yield FENCE


def pipeline(model: Mapping[str, Any]) -> str:
    """What the hub files the model under: what the original's card says, or what its kind says."""
    named = next((tag for tag in model["tags"] if tag in PIPELINES), "")
    return named or ("feature-extraction" if model["reads"] else "text-generation")


def _scalar(text: str) -> str:
    """JSON's strings are YAML's, too; plain words need no quotes."""
    plain = PLAIN.fullmatch(text) and text.lower() not in TAKEN
    return text if plain else json.dumps(text)


def _origin(first: Receipt) -> Iterator[str]:
    source = first["source"]
    if source["repository"]:
        revision = f" at revision `{source['revision']}`" if source["revision"] else ""
        name = source["repository"]
        yield f"Made from [{name}](https://huggingface.co/{name}){revision} with ingle {first['made_by']}."
    else:
        yield f"Made with ingle {first['made_by']}."
    yield ""


def _table(receipts: Sequence[Receipt]) -> Iterator[str]:
    columns = {"file": _file, "type": _type, "size": _size, "bits per weight": _bits, "perplexity": _perplexity,
               "mean KLD": _kld, "same top token": _same_top}  # fmt: skip
    rows = [[column(receipt) for column in columns.values()] for receipt in receipts]
    shown = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    yield f"| {' | '.join(list(columns)[at] for at in shown)} |"
    yield f"| {' | '.join('---' for _ in shown)} |"
    for row in rows:
        yield f"| {' | '.join(row[at] or '–' for at in shown)} |"
    yield ""


def _file(receipt: Receipt) -> str:
    return f"`{receipt['file']['name']}`"


def _type(receipt: Receipt) -> str:
    return str(receipt["model"]["type"])


def _size(receipt: Receipt) -> str:
    return f"{receipt['file']['size_bytes'] / 1e9:.2f} GB"


def _bits(receipt: Receipt) -> str:
    return f"{receipt['bits_per_weight']:.2f}"


def _last(receipt: Receipt) -> Mapping[str, Any]:
    return receipt["measured"][-1] if receipt["measured"] else {}


def _perplexity(receipt: Receipt) -> str:
    found = _last(receipt).get("perplexity")
    return f"{found['value']:.4f} ± {found['error']:.4f}" if found else ""


def _kld(receipt: Receipt) -> str:
    found = (_last(receipt).get("distance") or {}).get("kld")
    return f"{found['value']:.5f} ± {found['error']:.5f}" if found else ""


def _same_top(receipt: Receipt) -> str:
    found = (_last(receipt).get("distance") or {}).get("same_top")
    return f"{found['value']:.2%}" if found else ""


def _how_measured(receipts: Sequence[Receipt]) -> Iterator[str]:
    lines: dict[str, None] = {}
    for receipt in receipts:
        if last := _last(receipt):
            base = f", against {last['base']['name']}" if last.get("base") else ""
            text = (
                f"{last['on']['name']} ({last['predictions']:,} tokens scored, SHA-256 `{last['on']['sha256'][:16]}…`)"
            )
            machine = f"{last['machine']['cpu']}, {last['machine']['threads']} threads"
            lines[f"Measured on {text}{base}; {machine}."] = None
    yield from lines
    yield from ([""] if lines else [])


def _proofs(receipts: Sequence[Receipt]) -> Iterator[str]:
    lines = dict.fromkeys(
        f"Held to the checkpoint before it was kept, and equal in {proof.described(receipt['proof'])}."
        for receipt in receipts
        if receipt["proof"]
    )
    yield from lines
    matrices = dict.fromkeys(_matrix(receipt["importance"]) for receipt in receipts if receipt["importance"])
    yield from matrices
    yield from ([""] if lines or matrices else [])


def _matrix(found: Mapping[str, Any]) -> str:
    corpus = f", SHA-256 of the text `{found['corpus_sha256'][:16]}…`" if found.get("corpus_sha256") else ""
    return (
        f"Importance matrix: {found.get('weights', '?')} weights, {found.get('chunks', '?')} chunks of "
        f"{found.get('dataset', 'a text')}{corpus}."
    )


def _use(repository: str, receipts: Sequence[Receipt]) -> Iterator[str]:
    yield "```bash"
    yield f'ingle run {repository}:{receipts[0]["model"]["type"]} "Hello"'
    yield "```"
    yield ""


def _sources(receipts: Sequence[Receipt]) -> Iterator[str]:
    files = receipts[0]["source"]["files"]
    yield "<details><summary>Checksums</summary>"
    yield ""
    yield "| SHA-256 | file |"
    yield "| --- | --- |"
    for receipt in receipts:
        yield f"| `{receipt['file']['sha256']}` | {receipt['file']['name']} |"
    for name, digest in files.items():
        yield f"| `{digest}` | {name} of the checkpoint |"
    yield ""
    yield "</details>"
