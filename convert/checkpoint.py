"""A Hugging Face checkpoint folder as ``save_pretrained`` writes it: configs, and tensors that are not yet read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import safetensors
from .errors import BadCheckpoint
from .jsonfile import read_object
from .safetensors import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_INDEX_BYTES = 64 << 20
SHARD_NAME = re.compile(r"[A-Za-z0-9._-]+\.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "model.pth")
SAFETENSORS_HINT = (
    "save it again as safetensors: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder); "
    "for a hub model, look for a revision that has safetensors"
)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. Nothing it names (``auto_map``) is ever executed."""
    if not folder.is_dir():
        raise BadCheckpoint(f"{folder} is not a folder", hint="name the folder that holds config.json")
    path = folder / "config.json"
    if not path.exists():
        raise BadCheckpoint(
            f"{folder} has no config.json", hint="a checkpoint is a folder as save_pretrained writes it"
        )
    return read_object(path)


def read_generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_object(path) if path.exists() else {}


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The headers of model.safetensors, or of all shards that its index names.

    Raises:
        BadCheckpoint: no safetensors, a shard that is missing or outside the folder, or an index and headers that
            disagree about where a tensor is.
    """
    if (folder / SINGLE).exists():
        return safetensors.read(folder / SINGLE)
    if (folder / INDEX).exists():
        return _read_shards(folder, _read_index(folder / INDEX))
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if pickles:
        raise BadCheckpoint(f"{folder} has {pickles[0]}, but no safetensors", hint=SAFETENSORS_HINT)
    raise BadCheckpoint(f"{folder} has neither {SINGLE} nor {INDEX}", hint=SAFETENSORS_HINT)


def _read_index(path: Path) -> dict[str, str]:
    """The weight map of an index: tensor -> name of a file in the same folder."""
    weight_map = read_object(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadCheckpoint(f"{path} has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            raise BadCheckpoint(f"{path} places tensor {name!r} in {shard!r}, which is not a file of this folder")
    return weight_map


def _read_shards(folder: Path, weight_map: Mapping[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        here = safetensors.read(folder / shard)
        listed = {name for name, place in weight_map.items() if place == shard}
        if different := sorted(listed ^ set(here)):
            state = "is not in that file" if different[0] in listed else "is not in the index"
            raise BadCheckpoint(
                f"{folder / INDEX} and {shard} disagree: tensor {different[0]!r} {state}",
                hint="index and shards come from different saves; download the checkpoint again",
            )
        tensors |= here
    return {name: tensors[name] for name in weight_map}
