"""Idefics 3 and SmolVLM: a SigLIP tower whose neighbouring patches are folded into one row.

A picture is cut into tiles of the tower's size, and seen once more as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import names
from ..config import Config
from ..families.family import refuse_values
from ..gguf import Value
from ..report import Item
from . import siglip
from .siglip import FAMILY_OF_TOWER, MAX_IMAGE_SIZE, image_size, patch_size

CONNECTOR: names.Names = {"connector.modality_projection.proj": "mm.model.fc"}
MAX_SCALE = 64


def tensors(config: Config) -> names.Names:
    return {**siglip.tensors(config), **names.weights(CONNECTOR)}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    folded = config.hidden_size * _scale(config) ** 2
    return {**siglip.shapes(config), "mm.model.fc": (siglip.text_width(config), folded)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **siglip.metadata(config),
        "projector_type": "idefics3",
        "vision.projector.scale_factor": _scale(config),
        "use_gelu": True,
        "vision.preproc_image_size": _longest_edge(config),
    }


def limits(config: Config) -> Iterator[Item]:
    processor, tile = config.get("processor"), image_size(config)
    side = tile // patch_size(config)
    if tile % patch_size(config) or side % _scale(config):
        yield Item("picture", "fail", f"{tile} pixels do not divide into patches of {patch_size(config)}, folded "
                   f"{_scale(config)} by {_scale(config)}")  # fmt: skip
    if processor.get("max_image_size", {"longest_edge": tile}) != {"longest_edge": tile}:
        yield Item("picture", "fail", f"tiles of {processor['max_image_size']}, where llama.cpp cuts tiles of {tile}")
    if processor.get("do_image_splitting", True) is not True or _longest_edge(config) <= tile:
        yield Item("picture", "fail", "pictures are not cut into tiles, which llama.cpp always does for this family")
    yield from refuse_values(config, num_channels=3)


def _scale(config: Config) -> int:
    return siglip.whole("config.json", config.get("model"), "scale_factor", MAX_SCALE, 2)


def _longest_edge(config: Config) -> int:
    size = config.get("processor").get("size")
    return siglip.whole(siglip.PROCESSOR, size if isinstance(size, dict) else {}, "longest_edge", MAX_IMAGE_SIZE)


FAMILY = replace(
    FAMILY_OF_TOWER,
    classes=("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"),
    model_types=("smolvlm", "idefics3"),
    defaults={**FAMILY_OF_TOWER.defaults, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32},
    spellings={r"^model\.(?=vision_model\.|connector\.)": ""},
    tensors=tensors,
    metadata=metadata,
    shapes=shapes,
    limits=limits,
)
