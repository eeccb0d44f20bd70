"""What a promise leaves for the weights: bytes of a file, once all that is not quantized is counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...convert import gguf
from ...convert.errors import InputError
from ..engine.memory import Demand, usable
from ..llama.dry import DryModel
from ..options import LoadOptions
from .promise import Promise

USUAL_CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Bounds:
    """limit_bytes: of the whole file, None where its size is free; because: which promise set it. fixed_bytes: header
    and tensors that stay as they are; num_weights: of the whole file."""

    limit_bytes: int | None
    because: str
    fixed_bytes: int
    num_weights: int

    @classmethod
    def of(cls, promise: Promise, source: gguf.GGUF, fixed_bytes: int) -> Bounds:
        num_weights = sum(math.prod(info.shape) for info in source.tensors.values())
        limits: list[tuple[int, str]] = []
        if promise.max_bytes is not None:
            limits.append((promise.max_bytes, f"at most {promise.max_bytes:,} bytes"))
        if promise.max_bits_per_weight is not None:
            bits = promise.max_bits_per_weight
            limits.append((int(bits * num_weights / 8), f"at most {bits:g} bits per weight"))
        if promise.memory_bytes is not None:
            limits.append(_memory(promise, promise.memory_bytes, source))
        limit, because = min(limits, default=(None, ""), key=lambda one: one[0] or 0)
        return cls(limit, because, fixed_bytes, num_weights)

    @property
    def budget(self) -> int | None:
        """Bytes for the weights that are quantized; None where any number is allowed."""
        return None if self.limit_bytes is None else self.limit_bytes - self.fixed_bytes

    def bits_per_weight(self, size_bytes: int) -> float:
        return 8 * size_bytes / self.num_weights

    def too_small(self, smallest: int, kld: float) -> InputError:
        """The refusal where not even the smallest types fit. smallest: bytes of the weights in these."""
        size = self.fixed_bytes + smallest
        return InputError(
            f"{self.because} cannot be held: the smallest file that can be made has {size:,} bytes, "
            f"{self.bits_per_weight(size):.3f} bits per weight, and a KL divergence of about {kld:.2g}",
            hint=f"the nearest: --max-size {size}, or take a smaller model",
        )


def _memory(promise: Promise, memory_bytes: int, source: gguf.GGUF) -> tuple[int, str]:
    with DryModel.of([source]) as dry:
        context = promise.context_length or min(dry.context_trained, USUAL_CONTEXT)
        beside = Demand(dry, 0, LoadOptions()).at(context, "auto").total
    limit, left = usable(memory_bytes) - beside, memory_bytes - usable(memory_bytes)
    return limit, (
        f"at most {limit:,} bytes of the {memory_bytes / 1e9:.2f} GB of free memory ({left / 1e9:.2f} GB are left to "
        f"others, and a context of {context:,} tokens takes {beside / 1e9:.2f} GB with all that is beside the weights)"
    )
