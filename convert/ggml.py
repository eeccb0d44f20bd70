"""The element types of ggml: how many values share a block, and how many bytes a block takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .errors import UnknownType


@dataclass(frozen=True, slots=True)
class GGMLType:
    """One element type. ``block`` values are stored together in ``block_bytes`` bytes."""

    name: str
    id: int
    block: int
    block_bytes: int

    def row_bytes(self, length: int) -> int:
        """Bytes of a row of ``length`` values; ``length`` must be a multiple of ``block``."""
        return length // self.block * self.block_bytes

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of ``shape`` (slowest dimension first)."""
        return math.prod(shape[:-1]) * self.row_bytes(shape[-1])

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.block_bytes / self.block


# Source: the block structs and the type enumeration of ggml (ggml.h, ggml-common.h).
TYPES: Mapping[str, GGMLType] = MappingProxyType(
    {
        name: GGMLType(name, type_id, block, block_bytes)
        for name, type_id, block, block_bytes in (
            ("F32", 0, 1, 4),
            ("F16", 1, 1, 2),
            ("Q4_0", 2, 32, 18),
            ("Q4_1", 3, 32, 20),
            ("Q5_0", 6, 32, 22),
            ("Q5_1", 7, 32, 24),
            ("Q8_0", 8, 32, 34),
            ("Q8_1", 9, 32, 36),
            ("Q2_K", 10, 256, 84),
            ("Q3_K", 11, 256, 110),
            ("Q4_K", 12, 256, 144),
            ("Q5_K", 13, 256, 176),
            ("Q6_K", 14, 256, 210),
            ("Q8_K", 15, 256, 292),
            ("IQ2_XXS", 16, 256, 66),
            ("IQ2_XS", 17, 256, 74),
            ("IQ3_XXS", 18, 256, 98),
            ("IQ1_S", 19, 256, 50),
            ("IQ4_NL", 20, 32, 18),
            ("IQ3_S", 21, 256, 110),
            ("IQ2_S", 22, 256, 82),
            ("IQ4_XS", 23, 256, 136),
            ("I8", 24, 1, 1),
            ("I16", 25, 1, 2),
            ("I32", 26, 1, 4),
            ("I64", 27, 1, 8),
            ("F64", 28, 1, 8),
            ("IQ1_M", 29, 256, 56),
            ("BF16", 30, 1, 2),
            ("TQ1_0", 34, 256, 54),
            ("TQ2_0", 35, 256, 66),
            ("MXFP4", 39, 32, 17),
            ("NVFP4", 40, 64, 36),
            ("Q1_0", 41, 128, 18),
            ("Q2_0", 42, 64, 18),
            ("NVFP4", 40, 64, 36),
            ("Q1_0", 41, 128, 18),
            ("Q2_0", 42, 64, 18),
        )
    }
)

BY_ID: Mapping[int, GGMLType] = MappingProxyType({element.id: element for element in TYPES.values()})


def named(name: str) -> GGMLType:
    """The type of that name, in any case. Raises :class:`UnknownType`."""
    element = TYPES.get(name.upper())
    if element is None:
        raise UnknownType(f"there is no element type {name!r}", hint=f"known types: {', '.join(TYPES)}")
    return element
