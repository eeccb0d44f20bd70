"""What is decided before a model is loaded: how large its cache is, in which way it is computed, whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...convert import gguf
from ...convert.errors import UnsupportedModel
from .. import machine
from ..abilities import of_file
from ..llama.dry import DryModel
from ..llama.library import supports_gpu_offload
from ..llama.model import require_model
from ..llama.parts import parts_of
from ..options import FlashAttention, LoadOptions
from ..request import Footprint
from . import sizing, way
from .fitting import Facts, Fitting
from .memory import Demand, beside_bytes
from .pairing import Pair, paired
from .sizing import Sizes
from .way import Way


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """``file`` is the model's, or the first part of it; ``draft``: the draft model beside it."""

    file: gguf.GGUF
    sizes: Sizes
    way: Way
    flash_attention: FlashAttention
    footprint: Footprint
    warnings: tuple[str, ...] = ()
    draft: Pair | None = None


def plan(path: Path, options: LoadOptions, owed_bytes: int = 0) -> LoadPlan:
    """Decide all that can be decided from the header of a file. What memory cannot hold is refused within a second;
    ``owed_bytes`` of what seems free are others'.

    Raises:
        InputError: an option is out of range, contradicts another one, or asks for more than fits; it is no model.
        BadGGUF, LoadFailed: a file that llama.cpp would refuse. UnsupportedModel: it does not generate text.
    """
    sizing.validate(options)
    file = gguf.read(path)
    require_model(file.metadata, path)
    parts = parts_of(file)
    with DryModel.of(parts) as dry:
        if not dry.generates:
            raise UnsupportedModel(
                f"{path} is a {file.metadata.get('general.architecture')} model, which does not continue text",
                hint=_what_it_does(file.metadata),
            )
        weights_bytes = sum(info.nbytes for part in parts for info in part.tensors.values()) + beside_bytes(options)
        with paired(file.metadata, dry, options) as (draft, draft_demand):
            fitting = Fitting(
                Facts.of(file, dry),
                options,
                Demand(dry, weights_bytes, options, draft_demand),
                max(0, machine.available_memory_bytes() - owed_bytes),
                on_gpu=bool(options.gpu_layers) and supports_gpu_offload(),  # weights and cache lie elsewhere then
            )
            fitting.require()
            chosen = way.choose(path, replace(options, repack="off") if fitting.too_large else options)
            attention = fitting.flash_attention(chosen.flash_attention)
            footprint = fitting.footprint(attention)
        return LoadPlan(file, fitting.sizes, chosen, attention, footprint, fitting.warnings(), draft)


def _what_it_does(metadata: Mapping[str, gguf.Value]) -> str:
    tasks = ", ".join(of_file(metadata))
    known = f"it can do {tasks}" if tasks else "`ingle task --help` lists what it can do"
    return f"{known}: ingle task NAME MODEL TEXT"
