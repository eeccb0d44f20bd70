"""The encoder of umT5 alone."""

from __future__ import annotations

from dataclasses import replace

from ..config import Config
from ..names import Names
from . import t5_encoder


def tensors(config: Config) -> Names:
    return t5_encoder.sided(config, config.num_layers)


FAMILY = replace(
    t5_encoder.FAMILY,
    classes=("UMT5EncoderModel",),
    tensors=tensors,
)
