"""Checkpoints that are quantized already: which can be read (8-bit floats), and what to do about the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import BadCheckpoint, UnsupportedModel

DEFAULT_BLOCK = (128, 128)
ORIGINAL = "convert the checkpoint that it was made from (its model card names it), and quantize the GGUF instead"
# What transformers can undo itself, on a machine with enough memory.
UNDONE = (
    f"{ORIGINAL}; or undo it with transformers: AutoModelForCausalLM.from_pretrained(folder).dequantize()"
    ".save_pretrained(new_folder)"
)
HINTS: Mapping[str, str] = {
    "gptq": ORIGINAL,
    "awq": ORIGINAL,
    "bitsandbytes": UNDONE,
    "compressed-tensors": ORIGINAL,
    "hqq": UNDONE,
    "quanto": UNDONE,
    "bitnet": "llama.cpp has its own files for BitNet: look for a GGUF of this model",
}
MAX_BLOCK = 1 << 16


def fp8_block(config: Mapping[str, Any]) -> Sequence[int] | None:
    """Rows and columns that share a factor in a checkpoint of 8-bit floats; None for one that is not quantized.

    Raises:
        UnsupportedModel: it is quantized in a way that cannot be read. BadCheckpoint: an impossible block.
    """
    settings = config.get("quantization_config") or config.get("compression_config")
    if not settings:
        return None
    if not isinstance(settings, Mapping):
        raise _refused(str(settings), "")
    method = str(settings.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in settings else "unknown"))
    weights = _weights(settings) if method == "compressed-tensors" else {}
    if method in ("fp8", "fbgemm_fp8") or (method == "modelopt" and settings.get("quant_algo") == "FP8"):
        return _block(settings.get("weight_block_size"))
    if weights.get("type") == "float" and weights.get("num_bits") == 8:
        return _block(weights.get("block_structure"))
    bits = settings.get("bits") or weights.get("num_bits")
    raise _refused(method, f", {bits} bits" if isinstance(bits, int) else "")


def _weights(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What all groups of compressed-tensors say of their weights; nothing when they differ."""
    groups = settings.get("config_groups")
    said = (
        [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
        if (isinstance(groups, Mapping))
        else []
    )
    first = said[0] if said else None
    return first if isinstance(first, Mapping) and all(weights == first for weights in said) else {}


def _block(value: Any) -> Sequence[int]:
    if value is None:
        return DEFAULT_BLOCK
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 < n <= MAX_BLOCK for n in value):
        return value
    raise BadCheckpoint(f"quantization_config has the impossible block size {value!r}")


def _refused(method: str, bits: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"the checkpoint is already quantized ({method[:80]}{bits}), and of those only 8-bit floats can be read",
        hint=HINTS.get(method, ORIGINAL),
    )
