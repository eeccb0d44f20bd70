"""The encoder of T5 alone, as embedding models have it."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..config import Config
from . import t5


def tensors(config: Config) -> dict[str, str]:
    return _tensors(config, 1)


def tensors_own_positions(config: Config) -> dict[str, str]:
    return _tensors(config, config.num_layers)


def _tensors(config: Config, own: int) -> dict[str, str]:
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
UMT5 = replace(FAMILY, classes=("UMT5EncoderModel",), tensors=tensors_own_positions)
