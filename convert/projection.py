"""The vision part of a checkpoint, seen as the projector file that it will become. Lazy, like ``Source``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from . import config as configs
from . import gguf, metadata, plan
from .config import Config
from .errors import BadCheckpoint, UnsupportedModel
from .families import Family
from .gguf import Value
from .jsonfile import read_object
from .plan import Matched, RowsPlan
from .report import Item
from .tensor import Tensor

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
NESTED = "image_processor"
MAX_VALUES = 1 << 16


class Projection:
    """One vision part. ``dtype`` as for the language model, but q8_0: a projector is small, and kept as it is."""

    def __init__(
        self,
        folder: Path,
        raw: Mapping[str, Any],
        tensors: Callable[[], Mapping[str, Tensor]],
        family: Family,
        dtype: str,
        overflow: plan.Overflow,
    ) -> None:
        self.folder = folder
        self.overflow = overflow
        self.family = family
        self._raw = raw
        self._tensors = tensors
        self._dtype = "auto" if dtype.lower() == "q8_0" else dtype

    @cached_property
    def config(self) -> Config:
        values = {**self._raw["vision_config"], "processor": read_processor(self.folder), "model": self._raw}
        return configs.normalise(values, self.family.defaults, self.family.derived)

    @cached_property
    def matched(self) -> Matched:
        return plan.match(self._tensors(), self.family, self.config)

    @cached_property
    def dtype(self) -> str:
        return plan.resolve_dtype(self._dtype, self.matched)

    @cached_property
    def plans(self) -> list[RowsPlan]:
        return plan.tensors(self.matched, self.family, self.config, self.dtype, self.overflow)

    @cached_property
    def metadata(self) -> dict[str, Value]:
        general = metadata.general(self.folder, self.family.arch, self.dtype, plan.num_parameters(self.plans), {})
        own = {f"{self.family.arch}.{key}": value for key, value in self.family.metadata(self.config).items()}
        return {**general, "general.type": "mmproj", **own}

    @property
    def size_bytes(self) -> int:
        """Size of the file, padding aside."""
        return len(gguf.header(self.metadata, self.plans)) + sum(tensor.nbytes for tensor in self.plans)

    def check(self) -> Iterator[Item]:
        """A verdict on each aspect. Raises the first failure that leaves nothing to look at."""
        yield from self.limits()
        config = self.config
        yield Item(
            "vision",
            "ok",
            f"{config.num_layers} layers of {config.hidden_size:,}; {len(self.plans)} tensors, {self.size_bytes:,} "
            f"bytes as {self.dtype}, in a file of their own",
        )

    def limits(self) -> Iterator[Item]:
        """Verdicts on what llama.cpp computes differently, or not at all; from configs alone."""
        family, config = self.family, self.config
        if config.activation not in family.activations:
            raise UnsupportedModel(
                f"hidden_act {config.activation!r} of the vision part is not what llama.cpp computes: "
                f"{', '.join(family.activations)}"
            )
        yield from family.limits(config)


def read_processor(folder: Path) -> dict[str, Any]:
    """How pictures are prepared: what transformers 4 wrote into one file, and transformers 5 writes into another.

    Raises:
        BadCheckpoint: neither of them is there.
    """
    values: dict[str, Any] = {}
    for name in PROCESSORS:
        if (folder / name).exists():
            found = read_object(folder / name, most_values=MAX_VALUES)
            nested = found.get(NESTED)
            values |= nested if isinstance(nested, dict) else found
    if not values:
        raise BadCheckpoint(
            f"{folder} has neither {' nor '.join(PROCESSORS)}, which say how pictures are prepared",
            hint="download the checkpoint again, with all of its small files",
        )
    return values
