"""Whether a model is told which of two texts a token belongs to."""

from __future__ import annotations

from pathlib import Path

from .gguf import Value
from .jsonfile import read_object

KEY = "ingle.segments"
SEGMENTS = "token_type_ids"


def metadata(folder: Path) -> dict[str, Value]:
    """What tokenizer_config.json says of it, where it does."""
    settings = folder / "tokenizer_config.json"
    inputs = read_object(settings).get("model_input_names") if settings.is_file() else None
    return {KEY: SEGMENTS in inputs} if isinstance(inputs, list) else {}
