"""A Hugging Face checkpoint folder as ``save_pretrained`` writes it: configs, and tensors that are not yet read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import safetensors, torchbin
from .errors import BadCheckpoint
from .jsonfile import read_object
from .tensor import Tensor

MAX_INDEX_BYTES = 32 << 20
MAX_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """One way to store tensors: in the file ``single``, or in shards that the file ``index`` lists."""

    single: str
    index: str
    shard: re.Pattern[str]
    read: Callable[[Path], dict[str, Tensor]]


def _format(stem: str, suffix: str, read: Callable[[Path], dict[str, Tensor]]) -> Format:
    pattern = re.compile(rf"[A-Za-z0-9._-]+\.{suffix}")
    return Format(f"{stem}.{suffix}", f"{stem}.{suffix}.index.json", pattern, read)


SAFETENSORS = _format("model", "safetensors", safetensors.read)
TORCH = _format("pytorch_model", "bin", torchbin.read)
ADAPTER_FORMATS = (
    _format("adapter_model", "safetensors", safetensors.read),
    _format("adapter_model", "bin", torchbin.read),
)
FORMATS = (SAFETENSORS, TORCH)
"""Where a folder has both, the first is read."""

OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.pth", "model.onnx")
CONVERTED_HINT = (
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
    return read_object(path, most_values=MAX_VALUES)


def read_generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_object(path, most_values=MAX_VALUES) if path.exists() else {}


def read_tensors(folder: Path, formats: tuple[Format, ...] = FORMATS) -> dict[str, Tensor]:
    """The tensors of the single file, or of all shards that its index names; of the first format that is there.

    Raises:
        BadCheckpoint: no weights in a format that can be read, a shard that is missing or outside the folder, or an
            index and shards that disagree about where a tensor is.
    """
    for kind in formats:
        if (folder / kind.single).exists():
            return kind.read(folder / kind.single)
        if (folder / kind.index).exists():
            return _read_shards(folder, kind, _read_index(folder / kind.index, kind))
    wanted = " nor ".join(name for kind in formats for name in (kind.single, kind.index))
    others = [name for name in OTHERS if (folder / name).exists()]
    found = f"; its {others[0]} cannot be read" if others else ""
    raise BadCheckpoint(f"{folder} has neither {wanted}{found}", hint=CONVERTED_HINT)


def _read_index(path: Path, kind: Format) -> dict[str, str]:
    """The weight map of an index: tensor -> name of a file in the same folder."""
    weight_map = read_object(path, MAX_INDEX_BYTES, MAX_VALUES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadCheckpoint(f"{path} has no weight_map")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not kind.shard.fullmatch(shard):
            raise BadCheckpoint(
                f"{path} places tensor {name[:100]!r} in {str(shard)[:100]!r}, which is not a file of this folder"
            )
    return weight_map


def _read_shards(folder: Path, kind: Format, weight_map: Mapping[str, str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        here = kind.read(folder / shard)
        listed = {name for name, place in weight_map.items() if place == shard}
        if different := sorted(listed ^ set(here)):
            state = "is not in that file" if different[0] in listed else "is not in the index"
            raise BadCheckpoint(
                f"{folder / kind.index} and {shard} disagree: tensor {different[0]!r} {state}",
                hint="index and shards come from different saves; download the checkpoint again",
            )
        tensors |= here
    return {name: tensors[name] for name in weight_map}
