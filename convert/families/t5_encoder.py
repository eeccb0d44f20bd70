"""The encoder of T5 alone, as embedding models have it."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from ..names import Names
from . import t5


def tensors(config: Config) -> Names:
    return sided(config, 1)


def sided(config: Config, own: int) -> Names:
    """``own``: how many layers have relative positions of their own."""
    return names.weights({"shared": "token_embd"}, t5.stack("encoder", config), t5.positions("encoder", own))


FAMILY = replace(
    t5.FAMILY,
    arch="t5encoder",
    classes=("T5EncoderModel", "MT5EncoderModel"),
    model_types=(),
    tensors=tensors,
    optional=lambda config: {},
    metadata=t5.encoder_metadata,
    transforms=lambda config: {},
    tied_head=True,
)
