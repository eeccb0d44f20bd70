"""The ``general.*`` keys: what a file says about itself beside its architecture and vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import modelcard
from .gguf import Value

FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
QUANTIZATION_VERSION = 2

# generation_config.json -> llama.cpp's key, and the width it reads.
SAMPLING: tuple[tuple[str, str, type[np.generic]], ...] = (
    ("top_k", "general.sampling.top_k", np.int32),
    ("top_p", "general.sampling.top_p", np.float32),
    ("min_p", "general.sampling.min_p", np.float32),
    ("temperature", "general.sampling.temp", np.float32),
    ("repetition_penalty", "general.sampling.penalty_repeat", np.float32),
)
# llama.cpp changes how special tokens are matched when general.name contains one of these.
NAMES_WITH_EFFECT = re.compile(r"(phi)-?(?=3)|(modern)-(?=bert)", re.IGNORECASE)
SIZE_PART = re.compile(r"\d+(\.\d+)?[kmbt]", re.IGNORECASE)


def general(
    folder: Path, arch: str, dtype: str, num_parameters: int, generation: Mapping[str, Any]
) -> dict[str, Value]:
    """All ``general.*`` keys of a model file, in the order they are written."""
    card = modelcard.read(folder)
    return {
        "general.architecture": arch,
        "general.type": "model",
        **sampling(generation),
        **identity(model_id(folder)),
        "general.size_label": size_label(num_parameters),
        **_licence(card),
        **_words(card, "general.tags", "tags", "pipeline_tag"),
        **_words(card, "general.languages", "language", "languages"),
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def model_id(folder: Path) -> str:
    """``org/name`` for a snapshot in the Hugging Face cache, else the folder's own name."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def identity(identifier: str) -> dict[str, Value]:
    """Name, organization, base name and finetune, as far as an id of the common form says them."""
    organization, _, own = identifier.rpartition("/")
    keys: dict[str, Value] = {"general.name": safe_name(own)}
    if organization:
        keys["general.organization"] = title(organization)
    parts = own.split("-")
    size = next((place for place, part in enumerate(parts) if place and SIZE_PART.fullmatch(part)), None)
    if size is not None:
        keys["general.basename"] = "-".join(parts[:size])
        if parts[size + 1 :]:
            keys["general.finetune"] = "-".join(parts[size + 1 :])
    return keys


def safe_name(own: str) -> str:
    """A readable name that llama.cpp takes as a name only: it reads instructions out of ``phi-3`` and the like."""
    return title(NAMES_WITH_EFFECT.sub(lambda match: f"{match[1] or match[2]} ", own))


def title(text: str) -> str:
    """``smol-lm2-360m`` -> ``Smol Lm2 360m``: words of lower case only get a capital."""
    words = text.replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not re.match(r"v?\d", word) else word for word in words)


def size_label(num_parameters: int) -> str:
    """``361821120`` -> ``362M``, with two digits at least."""
    scale, suffix = next(
        (scale, suffix)
        for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
        if num_parameters > scale or suffix == "K"
    )
    scaled = num_parameters / scale
    return f"{scaled:.{max(2 - len(str(round(scaled)).lstrip('0')), 0)}f}{suffix}"


def sampling(generation: Mapping[str, Any]) -> dict[str, Value]:
    """The model's own sampling defaults, as far as generation_config.json gives them as numbers."""
    return {
        key: width(generation[name])
        for name, key, width in SAMPLING
        if isinstance(generation.get(name), int | float) and not isinstance(generation[name], bool)
    }


def _licence(card: Mapping[str, list[str]]) -> dict[str, Value]:
    keys = {
        "general.license": "license",
        "general.license.name": "license_name",
        "general.license.link": "license_link",
    }
    return {key: ",".join(card[name]) for key, name in keys.items() if card.get(name)}


def _words(card: Mapping[str, list[str]], key: str, *names: str) -> dict[str, Value]:
    words = [word for name in names for word in card.get(name, ())]
    return {key: words} if words else {}
