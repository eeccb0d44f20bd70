"""Rotary position embedding: what llama.cpp can do of what transformers can say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config, Rope, number
from .errors import BadCheckpoint
from .gguf import Value

YARN_BETAS = (("beta_fast", 32.0), ("beta_slow", 1.0))


def metadata(rope: Rope) -> dict[str, Value]:
    """The keys of a rotary embedding, without the architecture's prefix."""
    keys: dict[str, Value] = {"rope.freq_base": rope.theta}
    if rope.type == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": number(rope.scaling, "factor")}
    if rope.type == "yarn":
        keys |= _yarn(rope.scaling)
    return keys


def problem(rope: Rope, supported: frozenset[str]) -> str:
    """Why llama.cpp cannot compute this embedding for a family that supports these types; empty when it can."""
    if rope.type not in supported:
        return f"rope type {rope.type!r} is not supported for this architecture ({', '.join(sorted(supported))} are)"
    if rope.type == "yarn":
        for key, fixed in YARN_BETAS:
            if rope.scaling.get(key, fixed) != fixed:
                return f"yarn with {key} {rope.scaling[key]!r}: llama.cpp always uses {fixed:g} here"
        if rope.scaling.get("truncate") is False:
            return "yarn with truncate false: llama.cpp always rounds the correction range"
    return ""


def _yarn(scaling: Mapping[str, Any]) -> dict[str, Value]:
    """llama.cpp scales cos and sin by ``0.1 ln(factor) + 1`` by itself; ``attn_factor`` corrects that if need be."""
    factor = number(scaling, "factor")
    if type(scaling.get("original_max_position_embeddings")) is not int:
        raise BadCheckpoint("config.json: yarn needs original_max_position_embeddings")
    keys: dict[str, Value] = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": scaling["original_max_position_embeddings"],
    }
    natural = _mscale(factor, 1.0)
    wanted = _yarn_attention(scaling, factor)
    return keys if wanted == natural else keys | {"rope.scaling.attn_factor": wanted / natural}


def _yarn_attention(scaling: Mapping[str, Any], factor: float) -> float:
    if "attention_factor" in scaling:
        return number(scaling, "attention_factor")
    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return _mscale(factor, number(scaling, "mscale")) / _mscale(factor, number(scaling, "mscale_all_dim"))
    return _mscale(factor, 1.0)


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def llama3_factors(config: Config) -> NDArray[np.float32]:
    """The divisor of each frequency under Llama 3's scaling, shape ``(head_dim / 2,)``; f32 throughout, as the model.

    Short wavelengths are kept, long ones divided by ``factor``, and those between are blended.
    """
    scaling, one = config.rope.scaling, np.float32(1)
    factor = np.float32(number(scaling, "factor", 8.0))
    low, high = number(scaling, "low_freq_factor", 1.0), number(scaling, "high_freq_factor", 4.0)
    context = number(scaling, "original_max_position_embeddings", 8192)
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    wavelength = np.float32(2 * math.pi) * np.float32(config.rope.theta) ** exponent
    blend = (np.float32(context) / wavelength - np.float32(low)) / np.float32(high - low)
    between = one / ((one - blend) / factor + blend)
    return np.where(wavelength < context / high, one, np.where(wavelength > context / low, factor, between))


def longrope_factors(config: Config, num_dimensions: int) -> dict[str, NDArray[np.float32]]:
    """Phi-3's two tables of divisors, each of shape ``(num_dimensions / 2,)``."""
    tables = {}
    for name in ("long", "short"):
        values = config.rope.scaling.get(f"{name}_factor")
        if not isinstance(values, list) or len(values) * 2 != num_dimensions:
            raise BadCheckpoint(f"config.json: longrope needs a {name}_factor of {num_dimensions // 2} numbers")
        if not all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values):
            raise BadCheckpoint(f"config.json: {name}_factor has an entry that is not a positive number")
        tables[f"rope_factors_{name}.weight"] = np.array(values, np.float32)
    return tables


def longrope_attention(config: Config, original_context: int) -> float:
    """What cos and sin are multiplied with under longrope."""
    scaling = config.rope.scaling
    if "attention_factor" in scaling:
        return number(scaling, "attention_factor")
    factor = number(scaling, "factor", config.context_length / original_context)
    return math.sqrt(1 + math.log(factor) / math.log(original_context)) if factor > 1 else 1.0
