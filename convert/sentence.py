"""What sentence-transformers puts on top of a model: pooling, dense layers, normalisation, prompts.

``modules.json`` lists the modules in their order; each has a folder with its own config.json. The result is a head like
any other (see :mod:`.heads`), which gives an embedding for a text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .attach import Attached, Layer
from .checkpoint import read_tensors
from .config import Config
from .errors import BadCheckpoint, UnsupportedModel
from .gguf import Value
from .heads import FEATURES, Pooling, Step
from .jsonfile import read_array, read_object

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
LENGTH = "sentence_bert_config.json"
POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
MODES: Mapping[str, Pooling] = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
OTHER_SIMILARITIES = ("dot", "euclidean", "manhattan")  # than cosine
UNUSED_POOLINGS = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
ACTIVATIONS: Mapping[str, str] = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.linear.Identity": "",
}


def read(folder: Path, config: Config) -> Attached | None:
    """The modules behind the transformer, or None where there is no modules.json.

    Raises:
        BadCheckpoint: a module's files are broken. UnsupportedModel: a module, pooling or activation we do not know.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = [module(entry) for entry in read_array(folder / MODULES)]
    if not modules or modules[0][0] != "Transformer":
        raise UnsupportedModel(f"{folder / MODULES} begins with {modules[:1]}, not with a Transformer")
    pooling: Pooling | None = None
    steps: list[Step] = []
    layers: dict[str, Layer] = {}
    width = config.hidden_size
    for kind, path in modules[1:]:
        if kind == "Pooling" and pooling is None:
            pooling = _pooling(folder / path)
        elif kind == "Dense" and pooling is not None:
            name = f"dense{len(layers)}"
            layers[name] = _dense(folder / path, width)
            width = _width(layers[name])
            activation = _activation(folder / path)
            steps += [Step("linear", name), *([Step(activation)] if activation else [])]
        elif kind == "Normalize" and pooling is not None:
            steps.append(Step("normalize"))
        else:
            raise UnsupportedModel(f"{folder / MODULES}: a module {kind} at this place is not supported")
    if pooling is None:
        raise UnsupportedModel(f"{folder / MODULES} names no pooling", hint="it needs a Pooling module")
    return Attached(FEATURES, pooling, tuple(steps), layers).kept_whole()


def prompts(folder: Path) -> dict[str, Value]:
    """What is put before a text, by the name of the task; the longest text the model was made for, whether it reads
    small letters only; and by what two embeddings are compared, if not by their angle."""
    settings = _optional(folder / PROMPTS)
    found: dict[str, Value] = {}
    if isinstance(settings.get("prompts"), dict) and any(settings["prompts"].values()):
        found["ingle.prompts"] = json.dumps(settings["prompts"], ensure_ascii=False)
    if isinstance(settings.get("default_prompt_name"), str):
        found["ingle.default_prompt"] = settings["default_prompt_name"]
    if settings.get("similarity_fn_name") in OTHER_SIMILARITIES:
        found["ingle.similarity"] = str(settings["similarity_fn_name"])
    if _optional(folder / LENGTH).get("do_lower_case") is True:
        found["ingle.lower_case"] = True
    length = _optional(folder / LENGTH).get("max_seq_length")
    if type(length) is int and length > 0:
        found["ingle.max_sequence_length"] = length
    return found


def module(entry: Any) -> tuple[str, str]:
    """The kind of a module, and its folder, which must lie inside the checkpoint."""
    if not isinstance(entry, dict) or not isinstance(entry.get("type"), str) or not isinstance(entry.get("path"), str):
        raise BadCheckpoint(f"{MODULES} has an entry that names no type and path: {entry!r}")
    path = entry["path"]
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise BadCheckpoint(f"{MODULES} places a module outside of the checkpoint: {path!r}")
    return entry["type"].rpartition(".")[2], path


def _pooling(folder: Path) -> Pooling:
    settings = read_object(folder / "config.json")
    chosen = [pooling for key, pooling in POOLINGS.items() if settings.get(key)]
    chosen += [pooling for mode, pooling in MODES.items() if settings.get("pooling_mode") == mode]
    others = [key for key in UNUSED_POOLINGS if settings.get(key)]
    if len(set(chosen)) != 1 or others:
        raise UnsupportedModel(
            f"{folder / 'config.json'} asks for the pooling {sorted(set(chosen)) + others}",
            hint=f"one of {', '.join(MODES)} is supported",
        )
    if settings.get("include_prompt", True) is False:
        raise UnsupportedModel(f"{folder / 'config.json'}: include_prompt false is not supported")
    return chosen[0]


def _dense(folder: Path, width: int) -> Layer:
    tensors = read_tensors(folder)
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if weight is None or len(weight.shape) != 2 or weight.shape[1] != width:
        raise BadCheckpoint(f"{folder} has no linear.weight of {width} columns")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise BadCheckpoint(f"{folder}: linear.bias has shape {bias.shape}, where {weight.shape[:1]} is needed")
    return Layer(weight, bias)


def _width(layer: Layer) -> int:
    return layer.weight.shape[0] if layer.weight is not None else 0


def _activation(folder: Path) -> str:
    name = str(read_object(folder / "config.json").get("activation_function", "torch.nn.modules.activation.Tanh"))
    if name not in ACTIVATIONS:
        raise UnsupportedModel(f"{folder / 'config.json'}: the activation {name} is not supported")
    return ACTIVATIONS[name]


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
