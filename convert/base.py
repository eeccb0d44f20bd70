"""The model that an adapter belongs to, as far as an adapter must know it: names, shapes, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import config as configs
from . import gguf, metadata, plan, shapes
from .config import Config
from .errors import BadCheckpoint, IngleError, UnsupportedModel
from .families import FAMILIES, Family
from .gguf import GGUF
from .source import Source
from .tensor import Tensor

# Our spelling of a config key -> what a GGUF file calls it, behind the architecture's name.
KEYS: Mapping[str, str] = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
}


@dataclass(frozen=True, slots=True)
class Base:
    """One reading of a base model.

    path: the checkpoint folder or GGUF file. name: what its GGUF is called (``general.name``).
    targets: the shape of each tensor of its GGUF, slowest dimension first.
    sources: target -> the checkpoint's tensors that it is made of, in the family's spelling.
    weights: the checkpoint's tensors, by the family's names; none where the base is a GGUF file.
    """

    path: Path
    name: str
    family: Family
    config: Config
    targets: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, Tensor]

    @property
    def has_own_head(self) -> bool:
        return plan.HEAD_TARGET in self.targets


def read(path: Path) -> tuple[Base, ...]:
    """The base at ``path``; several readings of a GGUF file whose architecture more than one family shares.

    Of a checkpoint only configs and headers are read, so an outline of one does.

    Raises:
        BadCheckpoint, UnsupportedModel, BadGGUF: it cannot be read, or is no model.
    """
    return _from_file(path) if path.is_file() else (_from_folder(path),)


def _from_folder(folder: Path) -> Base:
    source = Source(folder, "auto")
    family, config = source.family, source.config
    targets = {planned.name: planned.shape for planned in source.plans}
    sources = _sources(family, config, targets)
    known = {name for group in sources.values() for name in group}
    weights = {plan.canonical_name(name, known, family): tensor for name, tensor in source.tensors.items()}
    name = str(metadata.identity(metadata.model_id(folder))["general.name"])
    return Base(folder, name, family, config, targets, sources, weights)


def _from_file(path: Path) -> tuple[Base, ...]:
    file = gguf.read(path)
    arch, kind = str(file.metadata.get("general.architecture", "")), file.metadata.get("general.type", "model")
    if kind != "model":
        raise UnsupportedModel(f"{path} is of type {kind}, not a model", hint="name the model that it belongs to")
    if file.metadata.get("split.count", 1) != 1:
        raise UnsupportedModel(f"{path} is one part of a split model", hint="name the base's checkpoint instead")
    candidates = [family for family in FAMILIES if family.arch == arch]
    found = [base for family in candidates if (base := _fitting(path, file, family)) is not None]
    if not found:
        raise UnsupportedModel(
            f"{path} ({arch or 'no architecture'}) does not say enough about how it was made from its checkpoint",
            hint="name the base's checkpoint instead: a folder, or its name on the hub",
        )
    return tuple(found)


def _fitting(path: Path, file: GGUF, family: Family) -> Base | None:
    """The file read as one family's; None where that family would have given it other tensors."""
    try:
        config = configs.normalise(_config_values(file, family), family.defaults, family.derived)
        required, own = plan.required_sources(family, config), family.shapes(config)
        alike = all(
            name in file.tensors and file.tensors[name].shape == shapes.expected(name, config, own)
            for name in required
            if name.endswith(".weight")
        )
        family.transforms(config)
    except (IngleError, KeyError):
        return None
    if not alike:
        return None
    targets = {name: info.shape for name, info in file.tensors.items()}
    name = str(file.metadata.get("general.name", path.stem))
    return Base(path, name, family, config, targets, _sources(family, config, targets), {})


def _config_values(file: GGUF, family: Family) -> dict[str, Any]:
    values: dict[str, Any] = {"tie_word_embeddings": plan.HEAD_TARGET not in file.tensors}
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadCheckpoint("the file has no embedding")
    values["vocab_size"] = embedding.shape[0]
    for name, key in KEYS.items():
        value = file.metadata.get(f"{family.arch}.{key}")
        if isinstance(value, int | float):
            values[name] = value
    return values


def _sources(family: Family, config: Config, targets: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    table = plan.required_sources(family, config) | plan.optional_sources(family, config)
    return {target: sources for target, sources in table.items() if target in targets}
