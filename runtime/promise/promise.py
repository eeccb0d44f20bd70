"""What is promised of a file before it is made: its size, what it loses, where it fits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...convert.errors import InputError

Goal = Literal["quality", "cpu-fast"]

SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?i?b?)", re.IGNORECASE)
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class Promise:
    """All that is not None must hold of the file.

    max_bytes: of the whole file. max_bits_per_weight: the whole file's bits by its weights. max_kld: mean KL divergence
    from the source in nats per token, on text that took no part in the choice. memory_bytes: that a machine has for the
    file and for a KV cache of ``context_length`` tokens. goal: what is wanted most of the files that hold all this.
    """

    max_bytes: int | None = None
    max_bits_per_weight: float | None = None
    max_kld: float | None = None
    memory_bytes: int | None = None
    context_length: int | None = None
    goal: Goal = "quality"

    def __post_init__(self) -> None:
        asked = (self.max_bytes, self.max_bits_per_weight, self.max_kld, self.memory_bytes)
        if all(one is None for one in asked):
            raise InputError("nothing is promised", hint="name a size, bits per weight, a KL divergence or a machine")
        for name in ("max_bytes", "max_bits_per_weight", "max_kld", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name.replace('_', ' ')} cannot be {value}", param=name)


def parse_size(text: str) -> int:
    """``3.2GB``, ``3.2 GiB``, ``3200M`` or bytes: decimal units, binary ones with an i.

    Raises:
        InputError: it is no size.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is no size", hint="for instance 3.2GB, 900MB, 2GiB, or a number of bytes")
    unit = match.group("unit").lower().removesuffix("b")
    base = 1024 if unit.endswith("i") else 1000
    power = POWERS.get(unit.removesuffix("i"))
    if power is None or unit == "i":
        raise InputError(f"{text!r} is no size", hint="units are B, kB, MB, GB, TB, and KiB, MiB, GiB, TiB")
    return int(float(match.group("number")) * base**power)
