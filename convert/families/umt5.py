"""umT5: mT5 with relative positions of its own in each layer, and a scaled head where it is tied."""

from __future__ import annotations

from dataclasses import replace

from ..config import Config
from ..names import Names
from . import mt5, t5


def tensors(config: Config) -> Names:
    return t5.both_sides(config, config.num_layers, t5.decoder_layers(config))


FAMILY = replace(
    mt5.FAMILY,
    classes=("UMT5ForConditionalGeneration",),
    model_types=("umt5",),
    tensors=tensors,
    transforms=t5.transforms,
    tied_head=False,
)
