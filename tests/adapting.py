"""PEFT adapters for tests: those of tests/adapters/, and random ones made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ingle.runtime.llama.adapter import NativeAdapter
from ingle.runtime.llama.context import Context, ContextOptions, Rows
from ingle.runtime.llama.model import NativeModel

TESTS = Path(__file__).parent
ADAPTERS = TESTS / "adapters"
CHECKPOINTS = TESTS / "checkpoints"
NAMES = sorted(path.name for path in ADAPTERS.iterdir())
QUERY = "model.layers.0.self_attn.q_proj"
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": ""}

Halves = tuple[np.ndarray, np.ndarray]


def prompts(name: str) -> list[dict[str, Any]]:
    """What the merged model of an adapter of tests/adapters/ answers: tokens, context, logits."""
    found: list[dict[str, Any]] = json.loads((ADAPTERS / name / "merged.json").read_text())["prompts"]
    return found


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A safetensors file of f32."""
    header: dict[str, Any] = {}
    end = 0
    for name, values in tensors.items():
        size = 4 * values.size
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(values, np.float32).tobytes() for values in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write(folder: Path, pairs: Mapping[str, Halves], **config: Any) -> Path:
    """An adapter folder: module -> A and B. A module whose name contains ``embed`` has its pair as an embedding's."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, halves in pairs.items():
        for half, values in zip("AB", halves, strict=True):
            kind = f"lora_embedding_{half}" if "embed" in module else f"lora_{half}.weight"
            tensors[f"base_model.model.{module}.{kind}"] = values
    write_tensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps({**LORA, **config}))
    return folder


def pair(out: int, into: int, rank: int = 2, seed: int = 0) -> Halves:
    """Random A and B for a matrix of ``out`` rows of ``into``."""
    draw = np.random.default_rng(seed)
    a, b = draw.standard_normal((rank, into)), draw.standard_normal((out, rank))
    return a.astype(np.float32), b.astype(np.float32)


def simple(folder: Path, **config: Any) -> Path:
    """An adapter of one pair, for the checkpoint ``llama``."""
    return write(folder, {QUERY: pair(32, 32)}, **config)


def last_logits(model: NativeModel, prompt: Mapping[str, Any], adapters: Sequence[NativeAdapter] = ()) -> np.ndarray:
    """llama.cpp's logits after the last token of a prompt."""
    options = ContextOptions(
        cells=prompt["context"],
        sequences=1,
        rows=512,
        threads=1,
        threads_prefill=1,
        kv_type="f32",
        flash_attention="off",
    )
    context = Context(model, options)
    context.use(adapters)
    index = context.decode([Rows(slot=0, start=0, tokens=prompt["tokens"], output=True)])[0]
    logits = context.logits(index).copy()
    context.close()
    return logits
