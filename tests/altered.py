"""Copies of the tiny checkpoints, with a config or tensors changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingle.convert import safetensors

CHECKPOINTS = Path(__file__).parent / "checkpoints"
NAMES = sorted(path.name for path in CHECKPOINTS.iterdir())


def copy(name: str, tmp_path: Path) -> Path:
    return shutil.copytree(CHECKPOINTS / name, tmp_path / name)


def edit(folder: Path, **changes: Any) -> Path:
    """Change config.json; a value of ... removes the key."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, tuple[str, Any]]], None]) -> Path:
    """Change the tensors of model.safetensors, as name -> (dtype, array)."""
    path = folder / "model.safetensors"
    tensors = {name: (tensor.dtype, tensor.values.copy()) for name, tensor in safetensors.read(path).items()}
    change(tensors)
    header, end = {}, 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    path.unlink()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(v.tobytes() for _, v in tensors.values()))
    return folder
