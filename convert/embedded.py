"""The checkpoint's own tokenizer inside the file, for models that read texts: llama.cpp's knows neither pairs nor
where in the text a token came from."""

from __future__ import annotations

import json
from pathlib import Path

from .gguf import Value
from .jsonfile import read_object

KEY = "tokenizer.huggingface.json"
SEGMENTS_KEY = "ingle.segments"
MOST_BYTES = 64 << 20
SEGMENTS = "token_type_ids"


def metadata(folder: Path) -> dict[str, Value]:
    """``tokenizer.json`` without its truncation and padding, where there is one; and whether the model is told which
    of two texts a token belongs to, where the checkpoint says that."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    tokenizer = {**read_object(path, MOST_BYTES), "truncation": None, "padding": None}
    found: dict[str, Value] = {KEY: json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))}
    settings = folder / "tokenizer_config.json"
    inputs = read_object(settings).get("model_input_names") if settings.is_file() else None
    if isinstance(inputs, list):
        found[SEGMENTS_KEY] = SEGMENTS in inputs
    return found
