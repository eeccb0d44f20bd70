"""EXAONE 4: norms after each half only, and on each head; the 32B has windowed layers, alone with rotary embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import names
from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..report import Item
from . import llama
from .family import shape_metadata, unsupported, window_pattern

# llama.cpp knows the model with windows by its layers.
LAYERS_WITH_WINDOWS = 64


def tensors(config: Config) -> names.Names:
    return names.weights(
        names.EMBEDDING, names.FINAL_NORM, names.ATTENTION, names.QUERY_KEY_NORMS, names.POST_NORMS, names.GATED_MLP
    )


def metadata(config: Config) -> dict[str, Value]:
    keys = shape_metadata(config)
    if config.num_layers != LAYERS_WITH_WINDOWS:
        return keys
    window = config.count("sliding_window", MAX_CONTEXT)
    return {**keys, **window_pattern(config, period=4), "attention.sliding_window": window}


def computed(config: Config) -> dict[str, NDArray[np.float32]]:
    return llama.computed(config)


def limits(config: Config) -> Iterator[Item]:
    if (config.get("sliding_window") is not None) != (config.num_layers == LAYERS_WITH_WINDOWS):
        yield unsupported("sliding_window", config.get("sliding_window"))


FAMILY = replace(
    llama.FAMILY,
    arch="exaone4",
    classes=("Exaone4ForCausalLM",),
    model_types=("exaone4",),
    tensors=tensors,
    metadata=metadata,
    transforms=lambda config: {},
    computed=computed,
    limits=limits,
    square=True,
)
