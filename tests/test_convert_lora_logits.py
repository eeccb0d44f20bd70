"""The logits of adapted models, through our converter and llama.cpp, against those of merged ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import adapting
import altered
import numpy as np
import pytest
import sweeping
from adapting import ADAPTERS, CHECKPOINTS, last_logits
from ingle.convert import base as bases
from ingle.convert import convert, lora, plan
from ingle.convert.adapter import convert_adapter
from ingle.convert.base import Base
from ingle.runtime.llama.adapter import NativeAdapter
from ingle.runtime.llama.model import NativeModel

# ggml looks GELU up in a table of f16, see test_convert_logits.
GELU_BOUND, BOUND = 1e-3, 1e-4
SWEEP_BOUND, SWEEP_EFFECT = 5e-3, 5e-2  # of the span of the logits
# The adapter of llama brings copies of the base's embedding, which only a checkpoint can be compared with.
BASES = [
    (name, kind) for name in adapting.NAMES for kind in ("checkpoint", "gguf") if (name, kind) != ("llama", "gguf")
]


@pytest.mark.parametrize("dtype", ["auto", "bf16"])
@pytest.mark.parametrize(("name", "kind"), BASES)
def test_an_adapted_model_answers_like_the_merged_one(
    name: str, kind: str, dtype: str, tmp_path: Path, record_property: Any
) -> None:
    file, adapter_file = tmp_path / "model.gguf", tmp_path / "adapter.gguf"
    convert(CHECKPOINTS / name, file, "f32")
    convert_adapter(ADAPTERS / name, CHECKPOINTS / name if kind == "checkpoint" else file, adapter_file, dtype)
    model = NativeModel(file)
    adapter = NativeAdapter(model, adapter_file)
    differences, effects = [], []
    for prompt in adapting.prompts(name):
        plain, adapted = last_logits(model, prompt), last_logits(model, prompt, [adapter])
        differences.append(float(np.abs(adapted - prompt["logits"]).max()))
        effects.append(float(np.abs(plain - prompt["logits"]).max()))
    adapter.close()
    model.close()
    record_property("max_abs_difference", max(differences))
    assert min(effects) > 0.1, "an adapter that changes nothing would prove nothing"
    gelu = name.startswith(("gemma", "gpt2"))
    assert max(differences) <= ((GELU_BOUND if gelu else BOUND) if dtype == "auto" else 0.05 * max(effects))


@pytest.mark.parametrize("name", sweeping.NAMES)
def test_every_family_is_adapted_as_it_is_merged(name: str, tmp_path: Path) -> None:
    """Random pairs for every weight that an adapter may change, against the checkpoint with those pairs merged."""
    entry = sweeping.load(name)
    checkpoint = sweeping.write_checkpoint(tmp_path / "base", entry)
    (base,) = bases.read(checkpoint)
    pairs = _pairs(base)
    patterns = {module: 1 for module, (a, _) in pairs.items() if len(a) == 1}
    folder = adapting.write(tmp_path / "adapter", pairs, rank_pattern=patterns)
    scales = {module: 4.0 if module in patterns else 2.0 for module in pairs}
    merged = altered.rewrite(
        sweeping.write_checkpoint(tmp_path / "merged", entry), lambda tensors: _merge(tensors, pairs, scales)
    )
    convert(checkpoint, tmp_path / "base.gguf", "f32")
    convert(merged, tmp_path / "merged.gguf", "f32")
    convert_adapter(folder, checkpoint, tmp_path / "adapter.gguf")
    prompt = entry["prompts"][-1]
    model = NativeModel(tmp_path / "base.gguf")
    adapter = NativeAdapter(model, tmp_path / "adapter.gguf")
    plain, adapted = last_logits(model, prompt), last_logits(model, prompt, [adapter])
    adapter.close()
    model.close()
    whole = NativeModel(tmp_path / "merged.gguf")
    wanted = last_logits(whole, prompt)
    whole.close()
    span = float(np.ptp(wanted))
    assert np.abs(plain - wanted).max() > SWEEP_EFFECT * span
    assert np.abs(adapted - wanted).max() <= SWEEP_BOUND * span


def _pairs(base: Base) -> dict[str, adapting.Halves]:
    """A pair for each module that may have one; of some the rank is 1, and some experts have none."""
    pairs = {}
    for module, shape in _modules(base).items():
        draw = np.random.default_rng(zlib.crc32(module.encode()))
        if "experts." in module and draw.integers(4) == 0:
            continue
        rank, (height, width) = 1 + int(draw.integers(3) > 0), shape[::-1] if "embed" in module else shape
        a, b = draw.standard_normal((rank, width)), draw.standard_normal((height, rank))
        pairs[module] = (a * 0.4 / width**0.5, b * 0.4 / rank**0.5)
    return pairs


def _modules(base: Base) -> dict[str, tuple[int, int]]:
    """The modules with a matrix of which all parts can be adapted, and the shapes of their weights."""
    fixed: set[str] = set()
    for target, sources in base.sources.items():
        tied = target == lora.EMBEDDING and not base.has_own_head
        if tied or not lora.is_adapted(base.family.arch, target):
            fixed.update(sources)
    known = {source for sources in base.sources.values() for source in sources}
    return {
        tensor.name.removesuffix(".weight"): (tensor.shape[0], tensor.shape[1])
        for tensor in base.weights.values()
        if tensor.name.endswith(".weight") and len(tensor.shape) == 2
        if (source := plan.canonical_name(tensor.name, known, base.family)) in known and source not in fixed
    }


def _merge(
    tensors: dict[str, tuple[str, Any]], pairs: Mapping[str, adapting.Halves], scales: Mapping[str, float]
) -> None:
    for module, (a, b) in pairs.items():
        name = f"{module}.weight"
        delta = scales[module] * (b @ a)
        kind, weight = tensors[name]
        tensors[name] = (kind, (weight + (delta.T if "embed" in module else delta)).astype(np.float32))
