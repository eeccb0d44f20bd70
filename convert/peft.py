"""A PEFT adapter folder as ``save_pretrained`` writes it: adapter_config.json, and pairs of matrices not yet read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checkpoint import ADAPTER_FORMATS, MAX_VALUES, read_tensors
from .errors import BadCheckpoint, UnsupportedModel
from .jsonfile import read_object
from .tensor import FLOATS, Tensor

CONFIG = "adapter_config.json"
MAX_RANK = 1 << 14
MAX_PATTERNS = 10_000
KEY = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:lora_(?P<part>[AB])(?:\.default)?\.weight"
    r"|lora_embedding_(?P<embedding>[AB])(?:\.default)?)"
)
COPY = re.compile(r"base_model\.model\.(?P<module>.+)\.base_layer\.weight")

# What changes the sum base + scale * B @ A, or adds to it: refused when set.
REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA rescales the base's own weights, which llama.cpp cannot",
    "modules_to_save": "modules_to_save holds whole replaced modules, which are no low-rank pairs",
    "trainable_token_indices": "trained token embeddings are no low-rank pairs",
    "target_parameters": "pairs for fused parameters (target_parameters) have no place in llama.cpp's format",
    "lora_bias": "biases of the pairs (lora_bias) have no place in llama.cpp's format",
    "layer_replication": "it repeats layers of the base (layer_replication)",
    "alora_invocation_tokens": "an activated adapter (aLoRA) works only behind its invocation tokens",
    "use_qalora": "QA-LoRA pools the activations before the pair",
}
PLAIN_STARTS = ("none", "true", "false", "gaussian", "eva", "orthogonal", "mica")
"""Ways to begin (``init_lora_weights``) that leave the base's weights as they are; PiSSA, LoftQ and others do not."""

KNOWN = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying",
    "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "lora_ga_config", "loftq_config", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora",
})  # fmt: skip
"""Keys that say how it was trained, or that are read here."""

# A pattern is a name, or a regular expression of these steps, of which few repeat: it cannot take long.
PATTERN = re.compile(r"(?:[\w./$^-]|\\[.dw]|\.[*+]|\\d[*+]|\[[\w-]{1,20}\][*+]?|\((?:[\w.]{1,60}\|?){1,40}\))+")
MAX_REPEATS = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """What is added to the weight of ``module``: ``scale`` times ``b @ a``.

    a: (rank, in); b: (out, rank). For an embedding: (rank, tokens) and (size, rank), added transposed.
    """

    module: str
    a: Tensor
    b: Tensor
    scale: float
    embedding: bool = False

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class Adapter:
    """The pairs of an adapter. copies: module -> the base's own weight, which PEFT stores beside a trained embedding.

    base: what config.json calls the model that it was trained on; may be empty.
    """

    folder: Path
    base: str
    rsLoRA: bool  # noqa: N815 - its name
    pairs: Mapping[str, Pair]
    copies: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def ranks(self) -> list[int]:
        return sorted({pair.rank for pair in self.pairs.values()})

    @property
    def scales(self) -> list[float]:
        return sorted({pair.scale for pair in self.pairs.values()})


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def read(folder: Path) -> Adapter:
    """The adapter in ``folder``; of its matrices only the headers are read.

    Raises:
        BadCheckpoint: a file is broken, or config and tensors contradict each other.
        UnsupportedModel: it does more than add low-rank pairs; the message names what.
    """
    config = read_config(folder)
    tensors = read_tensors(folder, ADAPTER_FORMATS)
    halves, copies = _halves(tensors)
    if not halves:
        raise BadCheckpoint(f"{folder} holds no pair of a LoRA", hint="it has been saved before it was trained?")
    pairs = {module: _pair(module, parts, config) for module, parts in halves.items()}
    base = config.get("base_model_name_or_path")
    return Adapter(folder, base if isinstance(base, str) else "", bool(config.get("use_rslora")), pairs, copies)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, of an adapter that can be converted. Raises what :func:`read` raises."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadCheckpoint(f"{folder} has no {CONFIG}", hint="an adapter is a folder as PEFT's save_pretrained writes")
    config = read_object(path, most_values=MAX_VALUES)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(f"{path}: an adapter of type {kind} cannot be converted", hint="LoRA adapters can")
    for key, why in REFUSED.items():
        if config.get(key):
            raise UnsupportedModel(f"{path}: {why}", hint=_MERGE)
    if config.get("bias", "none") != "none":
        raise UnsupportedModel(f"{path}: it changes biases (bias is {config['bias']!r})", hint=_MERGE)
    start = str(config.get("init_lora_weights")).lower()
    if start not in PLAIN_STARTS:
        raise UnsupportedModel(
            f"{path}: an adapter that began as {start[:40]!r} adds to a base whose weights were changed first",
            hint="save it again with PEFT's path_initial_model_for_weight_conversion, which makes it an ordinary LoRA",
        )
    unknown = [key for key, value in config.items() if value and key not in KNOWN]
    if unknown:
        raise UnsupportedModel(f"{path}: this version does not know what {unknown[0]!r} does", hint=_MERGE)
    return config


_MERGE = "merge it into its base with PEFT's merge_and_unload, and convert the result"


def scale_of(module: str, config: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and scale of a module's pair: ``alpha / r``, or with rsLoRA ``alpha / sqrt(r)``, by the patterns.

    As PEFT has it: the first key of a pattern that matches the end of the module's name, at a dot, wins.
    """
    rank = _number(_by_pattern(module, config, "rank_pattern", "r", 8), "a rank")
    alpha = _number(_by_pattern(module, config, "alpha_pattern", "lora_alpha", 8), "lora_alpha")
    if rank != int(rank) or not 1 <= rank <= MAX_RANK:
        raise BadCheckpoint(f"{CONFIG} gives {module} the rank {rank:g}, which is not 1 to {MAX_RANK:,}")
    return int(rank), alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(module: str, config: Mapping[str, Any], patterns: str, otherwise: str, default: int) -> Any:
    table = config.get(patterns) or {}
    if not isinstance(table, dict) or len(table) > MAX_PATTERNS:
        raise BadCheckpoint(f"{CONFIG}: {patterns} is not an object of at most {MAX_PATTERNS:,} names")
    found = next((value for key, value in table.items() if _matches(key, module)), None)
    return config.get(otherwise, default) if found is None else found


def _matches(key: str, module: str) -> bool:
    if module == key or module.endswith(f".{key}"):
        return True
    if not PATTERN.fullmatch(key) or sum(key.count(sign) for sign in "*+") > MAX_REPEATS:
        raise UnsupportedModel(
            f"{CONFIG}: the pattern {key[:100]!r} is neither a module's name nor a simple regular expression",
            hint="write the modules' names instead",
        )
    try:
        return re.match(rf"(.*\.)?({key})$", module) is not None
    except re.error as error:
        raise BadCheckpoint(f"{CONFIG}: the pattern {key[:100]!r} is broken: {error}") from error


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadCheckpoint(f"{CONFIG}: {what} must be a number, not {value!r}")
    return float(value)


def _halves(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Module -> its matrices by ``A``, ``B``, ``embedding A``, ``embedding B``; and copies of base weights."""
    halves: dict[str, dict[str, Tensor]] = {}
    copies: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := KEY.fullmatch(name):
            part = match["part"] or f"embedding {match['embedding']}"
            if part in halves.setdefault(match["module"], {}):
                raise BadCheckpoint(f"the adapter has {part} of {match['module']} twice")
            halves[match["module"]][part] = tensor
        elif match := COPY.fullmatch(name):
            copies[match["module"]] = tensor
        else:
            raise UnsupportedModel(f"tensor {name[:200]} of the adapter is no half of a LoRA pair", hint=_MERGE)
    return halves, copies


def _pair(module: str, parts: Mapping[str, Tensor], config: Mapping[str, Any]) -> Pair:
    embedding = "embedding A" in parts or "embedding B" in parts
    wanted = {"embedding A", "embedding B"} if embedding else {"A", "B"}
    if parts.keys() != wanted:
        raise BadCheckpoint(f"{module} has {', '.join(sorted(parts))} of a pair, where {' and '.join(sorted(wanted))} "
                            "are needed", hint="the adapter is incomplete; download it again")  # fmt: skip
    a, b = (parts[name] for name in sorted(wanted))
    rank, scale = scale_of(module, config)
    for tensor in (a, b):
        if tensor.dtype not in FLOATS:
            raise UnsupportedModel(f"tensor {tensor.name} is stored as {tensor.dtype}, not as floats", hint=_MERGE)
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise BadCheckpoint(
            f"the pair of {module} has the shapes {a.shape} and {b.shape}, where {CONFIG} gives it the rank {rank}",
            hint="config and tensors come from different adapters",
        )
    return Pair(module, a, b, scale, embedding)
