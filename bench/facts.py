"""What the measurements need to know of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from ingle.convert import gguf


def vocabulary(model: Path) -> int:
    """Tokens that the model knows."""
    tokens = gguf.read(model).metadata["tokenizer.ggml.tokens"]
    if not isinstance(tokens, list):
        raise TypeError(f"{model}: its vocabulary is no list")
    return len(tokens)


def context_length(model: Path) -> int:
    """Tokens of the window it was trained with."""
    metadata = gguf.read(model).metadata
    return int(str(metadata[f"{metadata['general.architecture']}.context_length"]))
