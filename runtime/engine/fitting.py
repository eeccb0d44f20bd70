"""A model and the memory of this machine: which cache fits, and what is said when none does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ...convert import gguf
from ...convert.errors import InputError
from ..llama import attention
from ..llama.dry import DryModel
from ..llama.library import levels
from ..llama.metadata import attention_heads
from ..llama.model import long_rope_after
from ..options import FlashAttention, LoadOptions
from ..request import Footprint
from . import sizing
from .memory import Demand, usable
from .sizing import Sizes

SMALLER_KV_TYPE = "q8_0"
WIDE_KV_TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the header of a file says of a model. long_rope_after: see :func:`.model.long_rope_after`; own_attention:
    whether ours computes it here."""

    name: str
    context_trained: int
    heads: int
    long_rope_after: int | None = None
    own_attention: bool = False

    @classmethod
    def of(cls, file: gguf.GGUF, dry: DryModel) -> Facts:
        heads, own = attention_heads(file.metadata), bool(levels().attention) and attention.suits(file.metadata)
        return cls(file.path.name, dry.context_trained, heads, long_rope_after(file), own)


class Fitting:
    """How a model is loaded under ``options`` into ``available_bytes`` of memory. ``on_gpu``: that is not asked.

    too_large: not even its weights fit beside the smallest cache. As long as they are mapped from the file they can be
    read from there again and again, so that only the rest has to fit.
    """

    def __init__(
        self, facts: Facts, options: LoadOptions, demand: Demand, available_bytes: int, *, on_gpu: bool = False
    ) -> None:
        self._facts, self._options, self._demand, self._on_gpu = facts, options, demand, on_gpu
        self._available_bytes = available_bytes
        self._attention = sizing.decided_flash_attention(options)
        room_bytes = usable(available_bytes)
        self.too_large = not on_gpu and demand.most_cells(room_bytes, self._attention, sizing.CELL_STEP) == 0
        self._room_bytes = room_bytes + (demand.weights_bytes if self.too_large else 0)

    @cached_property
    def sizes(self) -> Sizes:
        """Window and cache. Raises :class:`InputError` for what was asked for and contradicts itself."""
        wanted = self._options.context_length or self._facts.context_trained
        most = max(wanted, self._options.kv_cells or 0, sizing.POOL_CELLS)
        return sizing.choose(
            self._options,
            self._facts.context_trained,
            self._demand.bytes_per_cell(),
            self._available_bytes,
            self._facts.long_rope_after,
            sizing.MAX_CELLS if self._on_gpu else self.most_cells(most),
        )

    def most_cells(self, most: int) -> int:
        """The largest cache that fits, up to ``most`` cells."""
        return self._demand.most_cells(self._room_bytes, self._attention, most)

    @property
    def fits(self) -> bool:
        return self._on_gpu or self._needed.total <= self._room_bytes

    @property
    def _needed(self) -> Footprint:
        return self._demand.at(self.sizes.cells, self._attention)

    def require(self) -> None:
        """Raise :class:`InputError` where it does not fit: the system would end the process, or do nothing but swap."""
        if self._on_gpu:
            return
        stays = not self._options.mmap or self._options.repack == "on"
        if self.fits and not (self.too_large and stays):
            return
        needed = self._needed
        cache = needed.kv + needed.states
        raise InputError(
            f"{self._facts.name} with a cache of {self.sizes.cells:,} tokens needs {gigabytes(needed.total)} of memory "
            f"(weights {gigabytes(needed.weights)}, cache {gigabytes(cache)}, {_draft(needed)}the rest "
            f"{gigabytes(needed.total - needed.weights - cache - needed.draft)}), and "
            f"{gigabytes(self._available_bytes)} are there",
            hint=self._smaller() if self.too_large else self._largest(),
        )

    def _largest(self) -> str:
        """The largest setting that would fit."""
        option = "--ctx" if self._options.kv_cells is None else "--kv-cells"
        found = [(option, self.most_cells(self.sizes.cells))]
        if self._options.kv_type.lower() in WIDE_KV_TYPES:
            demand = self._demand.under(replace(self._options, kv_type=SMALLER_KV_TYPE))
            cells = demand.most_cells(self._room_bytes, "on", self.sizes.cells)
            found.append((f"--kv-type {SMALLER_KV_TYPE} {option}", cells))
        fitting = [f"{setting} {cells}" for setting, cells in found if cells]
        return f"the largest that fits: {', or '.join(fitting)}" if fitting else self._smaller()

    def _smaller(self) -> str:
        return "a smaller quantization needs less: ingle fit CHECKPOINT shows what fits"

    def flash_attention(self, fastest: FlashAttention = "auto") -> FlashAttention:
        """With or without; ``fastest`` is what was measured."""
        chosen = sizing.flash_attention(
            self._options,
            gpu_layers=int(self._on_gpu),
            cells=self.sizes.cells,
            heads=self._facts.heads,
            available_bytes=self._available_bytes,
            fastest=fastest,
            own=self._facts.own_attention,
        )
        if chosen == "off" and self._attention == "auto" and not self._on_gpu:
            return "off" if self._demand.at(self.sizes.cells, "off").total <= self._room_bytes else "on"
        return chosen

    def footprint(self, flash_attention: FlashAttention) -> Footprint:
        return self._demand.at(self.sizes.cells, flash_attention)

    def warnings(self) -> tuple[str, ...]:
        if not self.too_large:
            return ()
        return (
            f"the weights ({gigabytes(self._demand.weights_bytes)}) are larger than the memory that is available "
            f"({gigabytes(self._available_bytes)}): they are read from the disk again and again, which is slow",
        )


def _draft(needed: Footprint) -> str:
    return f"draft model {gigabytes(needed.draft)}, " if needed.draft else ""


def gigabytes(num_bytes: int) -> str:
    """``1.25 GB``."""
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes < 10e9 else f"{num_bytes / 1e9:,.1f} GB"
