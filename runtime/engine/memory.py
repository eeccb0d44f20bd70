"""How much memory a model takes, counted before it is loaded: from the header of its file, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..llama.context import ContextOptions
from ..llama.dry import DryModel, Taken
from ..options import LoadOptions
from ..request import Footprint
from . import sizing
from .drafter import context_for_drafts

PROGRAM_BYTES = 54 << 20
"""The interpreter, numpy, llama.cpp's code, and what a decode step needs beside its graph; as measured."""

TOKEN_BYTES = 512
"""Of a token of the vocabulary, in llama.cpp's tables and in ours; as measured."""

FLOAT_BYTES = 4
MOST_DRY_CELLS = 1 << 18
"""llama.cpp keeps a record of each cell even where it allocates no cache; larger ones are reckoned on from here."""

RESERVE = 16
"""One part in so many of the available memory is left to others."""


def beside_bytes(options: LoadOptions) -> int:
    """Of the files that are loaded beside the model."""
    paths = [adapter.path for adapter in options.adapters] + ([options.mmproj] if options.mmproj else [])
    return sum(Path(path).stat().st_size for path in paths if Path(path).is_file())


def usable(available_bytes: int) -> int:
    """What a model may take of the memory that is available."""
    return available_bytes - available_bytes // RESERVE


class Demand:
    """What a model demands of the memory, by the size of its cache.

    dry: the model without its weights, of which ``weights_bytes`` will be in memory.
    draft: what the draft model beside it demands. drafts: it is one itself.
    """

    def __init__(
        self,
        dry: DryModel,
        weights_bytes: int,
        options: LoadOptions,
        draft: Demand | None = None,
        *,
        drafts: bool = False,
    ) -> None:
        self._dry = dry
        self.weights_bytes = weights_bytes
        self._draft = draft
        self._drafts = drafts
        context = ContextOptions(
            cells=0,
            sequences=options.parallel + sizing.IDLE_SLOTS,
            rows=max(options.prefill_chunk, options.parallel),
            threads=1,
            threads_prefill=1,
            kv_type=options.kv_type,
        )
        self._context = context_for_drafts(context) if drafts else context
        self._outputs = self._context.sequences if drafts else options.parallel
        self._taken: dict[tuple[int, str], Taken] = {}

    def under(self, options: LoadOptions) -> Demand:
        """The same model under other options."""
        draft = self._draft.under(options) if self._draft else None
        return Demand(self._dry, self.weights_bytes, options, draft, drafts=self._drafts)

    def weighing(self, weights_bytes: int) -> Demand:
        """The same model with other weights; what was found of its contexts is shared."""
        other = copy.copy(self)
        other.weights_bytes = weights_bytes
        return other

    def at(self, cells: int, flash_attention: str) -> Footprint:
        """With a cache of so many cells, every one of them in use. Without a choice of attention, the thriftier one."""
        taken = self._take(cells, "on" if flash_attention == "auto" else flash_attention)
        return Footprint(
            weights=self.weights_bytes,
            kv=taken.kv,
            states=taken.states,
            compute=taken.compute,
            outputs=FLOAT_BYTES * self._dry.vocabulary * self._outputs,
            program=TOKEN_BYTES * self._dry.vocabulary + (0 if self._drafts else PROGRAM_BYTES),
            draft=self._draft.at(cells, flash_attention).total if self._draft else 0,
        )

    def bytes_per_cell(self) -> int:
        """Of keys and values, a draft model's included."""
        own = (self._take(2 * sizing.CELL_STEP, "on").kv - self._take(sizing.CELL_STEP, "on").kv) // sizing.CELL_STEP
        return own + (self._draft.bytes_per_cell() if self._draft else 0)

    def most_cells(self, room_bytes: int, flash_attention: str, most: int = sizing.MAX_CELLS) -> int:
        """The largest cache, up to ``most`` cells, with which everything fits; 0 where not even the smallest does."""
        return largest(lambda cells: self.at(cells, flash_attention).total <= room_bytes, most)

    def _take(self, cells: int, flash_attention: str) -> Taken:
        key = cells, flash_attention
        if key not in self._taken:
            if cells > MOST_DRY_CELLS:
                self._taken[key] = self._reckon(cells, flash_attention)
            else:
                self._taken[key] = self._dry.context(
                    replace(self._context, cells=cells, flash_attention=flash_attention)
                )
        return self._taken[key]

    def _reckon(self, cells: int, flash_attention: str) -> Taken:
        """Far along the straight line that it has become by then."""
        near, far = (self._take(at, flash_attention) for at in (MOST_DRY_CELLS // 2, MOST_DRY_CELLS))
        times = (cells - MOST_DRY_CELLS) / (MOST_DRY_CELLS // 2)
        return Taken(
            kv=round(far.kv + times * (far.kv - near.kv)),
            states=far.states,
            compute=round(far.compute + times * (far.compute - near.compute)),
        )


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest multiple of the cache's step up to ``most`` (rounded up) that ``fits``; 0 if none does."""
    low, high = 0, -(-most // sizing.CELL_STEP)
    if fits(high * sizing.CELL_STEP):
        return high * sizing.CELL_STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * sizing.CELL_STEP) else (low, middle)
    return low * sizing.CELL_STEP
