"""Which files of a repository are needed, and which of its GGUF files is meant. Looks at names, never at bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...convert.errors import BadCheckpoint, BadName, HubError
from .repository import RemoteFile, Repository

WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""A single file, or the index of shards; of a repository that has both kinds, the first is taken."""
SMALL_FILES = (
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "merges.txt",
    "modules.json",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    *(index for _, index in WEIGHTS),
)
MORE_SMALL_FILES = re.compile(r"additional_chat_templates/[^/]+\.jinja|\d+_[A-Za-z]+/(config\.json|model\.safetensors)")
"""In folders: chat templates, and the modules of sentence-transformers with their few weights."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model")

PREFERRED = ("Q4_K_M", "Q8_0", "Q5_K_M", "Q4_K_S", "Q6_K", "Q4_0", "Q5_K_S", "IQ4_XS", "IQ4_NL", "BF16", "F16", "F32")
"""The type that is taken when none is asked for: the first of these that is there."""

BIG_MODEL_PARAMETERS = 1_000_000_000
BIG_MODEL_TYPE = "Q4_K_M"
SMALL_MODEL_TYPE = "Q8_0"

PREFERRED_PROJECTOR = ("F16", "BF16", "Q8_0", "F32")
"""The type of a vision part that is taken: it is small, and suffers more from quantization than what it serves."""

_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_SIDE_FILES = re.compile(r"mmproj|imatrix|(?:^|[-_.])(?:lora|adapter)(?:[-_.]|$)", re.IGNORECASE)
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})")
_LABEL = re.compile(
    r"(?:^|[-_.])(?P<label>(?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|B?F16|FP16|F32))$", re.IGNORECASE
)
_SHARD = re.compile(r"[A-Za-z0-9._-]+\.(safetensors|bin)")


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of a GGUF repository: one file, or all parts of a split one, in order. ``label`` may be empty."""

    label: str
    stem: str
    files: tuple[RemoteFile, ...]


def is_checkpoint(repository: Repository) -> bool:
    """Whether there is something to convert."""
    return "config.json" in repository.files and _weights(repository) is not None


def index_name(repository: Repository) -> str | None:
    """The file that lists the shards of the weights; None where they are a single file."""
    found = _weights(repository)
    return found if found and found.endswith(".json") else None


def is_adapter(repository: Repository) -> bool:
    """Whether it holds an adapter of PEFT instead of a whole model."""
    return ADAPTER_CONFIG in repository.files and not is_checkpoint(repository)


def adapter_files(repository: Repository) -> list[RemoteFile]:
    """The config, weights and card of an adapter; the weights as safetensors where there are any.

    Raises:
        BadCheckpoint: it has no weights.
    """
    weights = next((name for name in ADAPTER_WEIGHTS if name in repository.files), None)
    if weights is None:
        raise BadCheckpoint(
            f"{repository.id} has neither {' nor '.join(ADAPTER_WEIGHTS)}", hint=_what_is_there(repository)
        )
    wanted = (ADAPTER_CONFIG, weights, "README.md")
    return [repository.files[name] for name in wanted if name in repository.files]


def small_files(repository: Repository) -> list[RemoteFile]:
    """The configs, tokenizer and templates of a checkpoint.

    Raises:
        BadCheckpoint: the repository holds no checkpoint that we can read.
    """
    names = repository.files.keys()
    if is_adapter(repository):
        raise BadCheckpoint(
            f"{repository.id} holds an adapter, not a whole model",
            hint=f"ingle convert {repository.id} -o adapter.gguf, then ingle run BASE --lora adapter.gguf",
        )
    if "config.json" not in names:
        raise BadCheckpoint(f"{repository.id} has no config.json", hint=_what_is_there(repository))
    if not set(TOKENIZERS) & names:
        raise BadCheckpoint(f"{repository.id} has neither {' nor '.join(TOKENIZERS)}", hint=_what_is_there(repository))
    if _weights(repository) is None:
        raise BadCheckpoint(
            f"{repository.id} has neither {' nor '.join(name for kind in WEIGHTS for name in kind)}",
            hint=f"only safetensors and torch's own format are read; {_what_is_there(repository)}",
        )
    return [file for name, file in repository.files.items() if name in SMALL_FILES or MORE_SMALL_FILES.fullmatch(name)]


def weight_files(repository: Repository, index: str | None) -> list[RemoteFile]:
    """The weights: the single file, or the shards that ``index`` (the text of the index file) names.

    Raises:
        BadCheckpoint: the index is broken, or names a file that is not there.
    """
    found = _weights(repository)
    if found and found != index_name(repository):
        return [repository.files[found]]
    try:
        names = sorted(set(json.loads(index or "")["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadCheckpoint(f"{repository.id}: {found} is broken: {error}") from error
    for name in names:
        if not _SHARD.fullmatch(str(name)) or name not in repository.files:
            raise BadCheckpoint(f"{repository.id}: {found} names {name!r}, which is not in the repository")
    return [repository.files[name] for name in names]


def _weights(repository: Repository) -> str | None:
    """The file that the weights are in, or that lists their files: as the converter chooses it in a folder."""
    return next((name for kind in WEIGHTS for name in kind if name in repository.files), None)


def default_type(parameters: int) -> tuple[str, str]:
    """The type that a model is quantized to when none is asked for, and why."""
    if parameters >= BIG_MODEL_PARAMETERS:
        return BIG_MODEL_TYPE, f"none was asked for, and {parameters:,} parameters are a billion or more"
    return SMALL_MODEL_TYPE, f"none was asked for, and {parameters:,} parameters are less than a billion"


def preferred(labels: Iterable[str]) -> str:
    """The label that is taken when none is asked for: by :data:`PREFERRED`, then by name."""
    ranks = {label: rank for rank, label in enumerate(PREFERRED)}
    return min(labels, key=lambda label: (ranks.get(label, len(ranks)), label))


def variants(repository: Repository) -> list[Variant]:
    """The models that a repository holds as GGUF; projectors, adapters and importance matrices are none.

    Raises:
        HubError: a part of a split model is missing.
    """
    groups: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in repository.files.values():
        path = PurePosixPath(file.name)
        if path.suffix.lower() == ".gguf" and not _SIDE_FILES.search(path.stem):
            split = _PART.fullmatch(path.stem)
            stem, part, parts = (split["stem"], int(split["part"]), int(split["parts"])) if split else (path.stem, 1, 1)
            groups.setdefault((f"{path.parent}/{stem}".removeprefix("./"), parts), {})[part] = file
    return [_variant(stem, parts, files) for (stem, parts), files in sorted(groups.items())]


def projector(repository: Repository) -> RemoteFile | None:
    """The vision part that a repository holds beside its models, if it does: by :data:`PREFERRED_PROJECTOR`."""
    paths = {PurePosixPath(name): file for name, file in repository.files.items()}
    found = {p: f for p, f in paths.items() if p.suffix.lower() == ".gguf" and _PROJECTOR.search(p.stem)}
    ranks = {label: rank for rank, label in enumerate(PREFERRED_PROJECTOR)}
    best = min(found, key=lambda path: (ranks.get(_label(path.with_suffix("")), len(ranks)), str(path)), default=None)
    return None if best is None else found[best]


def matching(variants: Sequence[Variant], wanted: str) -> list[Variant]:
    """The variants whose label is ``wanted``, or else whose file name ends in it."""
    return [v for v in variants if v.label == wanted] or [v for v in variants if _answers(v, wanted)]


def choose(variants: Sequence[Variant], wanted: str | None, repository: str) -> tuple[Variant, str]:
    """The variant that is meant, and why.

    Raises:
        BadName: none, or several, answer to ``wanted``.
    """
    if wanted is None:
        label = preferred(variant.label for variant in variants)
        found = [variant for variant in variants if variant.label == label]
        reason = f"none was asked for; the repository has {', '.join(sorted(_shown(v) for v in variants))}"
    else:
        found = matching(variants, wanted)
        reason = "asked for"
    if len(found) != 1:
        listed = ", ".join(sorted(_shown(variant) for variant in found or variants))
        number = f"{len(found)} GGUF files" if found else "no GGUF file"
        raise BadName(
            f"{repository} has {number} for {wanted or 'any type'}",
            hint=f"write {repository}:TYPE with one of: {listed}",
        )
    return found[0], reason


def _variant(stem: str, parts: int, files: dict[int, RemoteFile]) -> Variant:
    missing = set(range(1, parts + 1)) ^ files.keys()
    if missing:
        raise HubError(f"{stem} is split in {parts} parts, of which the repository lacks number {min(missing)}")
    return Variant(_label(PurePosixPath(stem)), stem, tuple(files[part] for part in sorted(files)))


def _label(stem: PurePosixPath) -> str:
    match = _LABEL.search(stem.name) or _LABEL.fullmatch(stem.parent.name)
    return match["label"].upper().replace("FP16", "F16") if match else ""


def _answers(variant: Variant, wanted: str) -> bool:
    stem = variant.stem.upper()
    return stem == wanted or any(stem.endswith(separator + wanted) for separator in "-_./")


def _shown(variant: Variant) -> str:
    return variant.label or variant.stem


def _what_is_there(repository: Repository) -> str:
    names = sorted(name for name in repository.files if "/" not in name)
    return f"it has {', '.join(names[:12])}" + (" …" if len(names) > 12 else "")
