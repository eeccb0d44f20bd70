"""Checkpoints of the conformance sweep, made on the spot from tests/sweep/: a config, and names and shapes of tensors.

The weights are drawn from a generator seeded with each tensor's name, so that transformers (which gave the golden
logits, see tests/reference/make_sweep.py) and the tests have the same ones without storing any.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ingle.runtime.llama.context import Context, ContextOptions, Rows
from ingle.runtime.llama.model import NativeModel

TESTS = Path(__file__).parent
SWEEP = TESTS / "sweep"
NAMES = sorted(path.stem for path in SWEEP.glob("*.json"))
TOKENIZER = TESTS / "checkpoints" / "gpt2"
# transformers 4 kept these at the top of the config, beside rope_scaling.
ROPE_KEYS = ("rope_theta", "partial_rotary_factor")
# Of models with two rotary embeddings, the theta of the full and of the windowed layers.
LOCAL_THETA = {
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    **dict.fromkeys(("gemma3", "gemma3_text"), ("rope_theta", "rope_local_base_freq")),
}
# The scale of a random matrix over 1 / sqrt(its row length), and the usual value and spread of a vector.
MATRICES: tuple[tuple[str, float], ...] = ((r".*(embed|wte|wpe|lm_head|word_embeddings).*", 1.0), (r".*", 1.2))
VECTORS: tuple[tuple[str, float, float], ...] = (
    (r".*\.A_log", 0.5, 0.3),
    (r".*\.dt_bias", -1.0, 0.5),
    (r".*\.alpha_[np]", 0.3, 0.1),
    (r".*([Nn]orm|_ln|ln_|layer_scalar).*(?<!bias)", 1.0, 0.1),
    (r".*\.D", 1.0, 0.1),
    (r".*router\.(per_expert_)?scale", 1.0, 0.3),
    (r".*", 0.0, 0.1),
)


def load(name: str) -> dict[str, Any]:
    """An entry of the sweep: model, config, tensors (name -> shape), prompts (tokens, context, logits)."""
    entry: dict[str, Any] = json.loads((SWEEP / f"{name}.json").read_text())
    return entry


def values(name: str, shape: tuple[int, ...], centred: bool) -> np.ndarray:
    """The weights of a tensor. ``centred``: norms multiply with one more than they store."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1 and not (len(shape) == 2 and "norm" in name):
        scale = next(scale for pattern, scale in MATRICES if re.fullmatch(pattern, name))
        return np.asarray(draw * scale / shape[-1] ** 0.5, np.float32)
    usual, spread = next((usual, spread) for pattern, usual, spread in VECTORS if re.fullmatch(pattern, name))
    usual = 0.0 if centred and usual == 1.0 and "linear_attn.norm" not in name else usual
    return np.asarray(usual + spread * draw, np.float32)


def write_weights(path: Path, shapes: Mapping[str, list[int]], centred: bool) -> None:
    """A safetensors file with the weights of these tensors, in f32."""
    header, end, parts = {}, 0, []
    for name, shape in shapes.items():
        part = values(name, tuple(shape), centred).tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + len(part)]}
        end += len(part)
        parts.append(part)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def write_checkpoint(folder: Path, entry: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Path:
    """The checkpoint of an entry, with another config if one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or entry["config"]))
    write_weights(folder / "model.safetensors", entry["tensors"], entry.get("centred", False))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / file, folder / file)
    for file, source in entry.get("beside", {}).items():
        shutil.copyfile(TESTS / "vision" / source / file, folder / file)
    return folder


def older_config(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The config as transformers 4 wrote it: ``rope_theta`` and ``rope_scaling``, ``torch_dtype``, and so on.

    An entry's ``older`` says what the generic rules cannot; a value of null there removes a key.
    """
    text = entry["config"].get("text_config")
    config = _older(entry["config"])
    if isinstance(text, dict):
        config["text_config"] = _older(text)
    changed = {**config, **entry.get("older", {})}
    return {key: value for key, value in changed.items() if value is not None or key == "rope_scaling"}


def _older(newer: Mapping[str, Any]) -> dict[str, Any]:
    config = dict(newer)
    rope = dict(config.get("rope_parameters") or {})
    kinds = [value for value in rope.values() if isinstance(value, dict)]
    if rope and not kinds:
        del config["rope_parameters"]
        config |= {key: rope.pop(key) for key in ROPE_KEYS if key in rope}
        config["rope_scaling"] = _older_scaling(rope)
    elif kinds and config.get("model_type") in LOCAL_THETA:
        del config["rope_parameters"]
        full, local = dict(rope["full_attention"]), rope["sliding_attention"]
        whole, windowed = LOCAL_THETA[config["model_type"]]
        config |= {whole: full.pop("rope_theta"), windowed: local["rope_theta"]}
        config["rope_scaling"] = _older_scaling(full)
    if "dtype" in config or "architectures" in config:
        config["torch_dtype"] = config.pop("dtype", "float32")
    return config


def _older_scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    kind = rope.pop("rope_type", "default")
    return {"type": kind, **rope} if rope or kind != "default" else None


def last_logits(model: NativeModel, prompt: Mapping[str, Any]) -> np.ndarray:
    """llama.cpp's logits after the last token of a prompt."""
    # Flash attention rounds on its way, so that it would hide what a conversion changed.
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
    index = context.decode([Rows(slot=0, start=0, tokens=prompt["tokens"], output=True)])[0]
    logits = context.logits(index).copy()
    context.close()
    return logits
