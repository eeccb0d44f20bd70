"""Which quantization of a model fits this machine, with which context: from headers alone, before a weight is here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..convert import gguf
from ..convert.errors import UnsupportedModel
from ..convert.ggml import GGMLType
from ..convert.progress import Progress, silent
from . import machine
from .engine.fitting import Facts, Fitting
from .engine.memory import Demand, beside_bytes, usable
from .engine.pairing import paired
from .llama.dry import DryModel
from .llama.model import require_model
from .llama.parts import parts_of
from .options import LoadOptions
from .request import Footprint

Verdict = Literal["fits", "smaller context", "from disk", "too large"]
CONTEXTS = (4096, 32_768)
"""Windows that are always looked at, beside the one that the model was trained for."""


@dataclass(frozen=True, slots=True)
class Window:
    """One context length. ``cells``: of the cache, with room for several requests where there is some."""

    context: int
    cells: int
    footprint: Footprint
    fits: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One quantization.

    windows: for each context length that was asked about. largest: the largest context that fits, 0 for none.
    chosen: the context that is taken when nobody asks for one.
    from disk: only if the weights are read from the disk again and again. needs_imatrix: to be made at all.
    """

    type: str
    file_bytes: int
    windows: tuple[Window, ...]
    largest: int
    chosen: int
    verdict: Verdict
    needs_imatrix: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """usable_bytes: what a model may take of the memory that is available; the rest is left to others."""

    model: str
    architecture: str
    context_trained: int
    available_bytes: int
    usable_bytes: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Model:
    """A model as far as a header tells: types and bytes of its possible files."""

    facts: Facts
    dry: DryModel
    metadata: Mapping[str, Any]
    candidates: Mapping[str, tuple[int, int]]
    imatrix: frozenset[str] = field(default_factory=frozenset)


def fit(name: str, options: LoadOptions | None = None, progress: Progress = silent) -> Report:
    """Look at a GGUF file or a model that is here (``org/name:TYPE``) as it is, at a checkpoint folder or one of the
    hub in every type that it could be quantized to.

    Raises:
        IngleError: it cannot be had, or is no model that writes text.
    """
    from .store.names import FileName, HubName, parse
    from .store.store import Store

    options = options or LoadOptions()
    if options.draft is not None:
        options = replace(options, draft=str(Store().find(options.draft).path))
    wanted = None if Path(name).is_dir() else parse(name)
    if isinstance(wanted, FileName) or (isinstance(wanted, HubName) and wanted.type):
        return _of_file(name, options)
    return _of_checkpoint(name, options, progress)


def _of_file(name: str, options: LoadOptions) -> Report:
    from ..quantize.types import TYPES
    from .store.store import Store

    entry = Store().find(name)
    file = gguf.read(entry.path)
    require_model(file.metadata, entry.path)
    parts = parts_of(file)
    named = next((kind.name for kind in TYPES.values() if kind.native_id == file.metadata.get("general.file_type")), "")
    beside = entry.projector.size_bytes if entry.projector and options.mmproj is None else 0
    weights = sum(info.nbytes for part in parts for info in part.tensors.values()) + beside
    with DryModel.of(parts) as dry:
        _require_writer(dry, name)
        sizes = {entry.type or named or "GGUF": (entry.size_bytes, weights)}
        model = _Model(Facts.of(file, dry), dry, file.metadata, sizes)
        return _report(name, model, options)


def _of_checkpoint(name: str, options: LoadOptions, progress: Progress) -> Report:
    from ..convert.source import Source
    from ..quantize.mixtures import mixtures
    from ..quantize.types import TYPES
    from .store.preview import checkpoint_preview

    with checkpoint_preview(name, progress) as folder, tempfile.TemporaryDirectory(prefix="ingle-") as temporary:
        source = Source(folder, "auto")
        plans, metadata = source.plans, source.metadata
        beside = source.projection.size_bytes if source.projection else 0
        outline = Path(temporary, "outline.gguf")
        numbers = {key: value for key, value in metadata.items() if not key.startswith("tokenizer.")}
        gguf.outline(outline, numbers | {"tokenizer.ggml.model": "no_vocab"}, plans)
        head = len(gguf.header(metadata, plans))
        candidates = {
            kind: (head + beside + _bytes(plans, types, padded=True), beside + _bytes(plans, types))
            for kind, types in mixtures(outline).items()
        }
        needy = frozenset(kind.name for kind in TYPES.values() if kind.needs_imatrix)
        file = gguf.read(outline)
        with DryModel(metadata, plans, source.config.vocab_size) as dry:
            _require_writer(dry, name)
            facts = replace(Facts.of(file, dry), name=name)
            return _report(name, _Model(facts, dry, metadata, candidates, needy), options)


def _bytes(plans: Sequence[gguf.TensorPlan], types: Mapping[str, GGMLType], *, padded: bool = False) -> int:
    sizes = (types[plan.name].nbytes(plan.shape) for plan in plans)
    return sum(gguf.padded(size) if padded else size for size in sizes)


def _require_writer(dry: DryModel, name: str) -> None:
    if not dry.generates:
        raise UnsupportedModel(
            f"{name} reads texts, it does not write any", hint="its memory is that of its file, and little more"
        )


def _report(name: str, model: _Model, options: LoadOptions) -> Report:
    available_bytes = machine.available_memory_bytes()
    beside = beside_bytes(options)
    with paired(model.metadata, model.dry, options) as (_, draft):
        demand = Demand(model.dry, 0, options, draft)
        rows = []
        for kind, (file_bytes, weights_bytes) in model.candidates.items():
            weighing = demand.weighing(weights_bytes + beside)
            rows.append(_row(kind, file_bytes, _Fittings(model.facts, options, weighing, available_bytes), model))
    return Report(
        name,
        str(model.metadata["general.architecture"]),
        model.facts.context_trained,
        available_bytes,
        usable(available_bytes),
        tuple(rows),
    )


@dataclass(frozen=True, slots=True)
class _Fittings:
    """The same model and machine under several context lengths."""

    facts: Facts
    options: LoadOptions
    demand: Demand
    available_bytes: int

    def at(self, context: int | None) -> Fitting:
        return Fitting(self.facts, replace(self.options, context_length=context), self.demand, self.available_bytes)


def _row(kind: str, file_bytes: int, fittings: _Fittings, model: _Model) -> Row:
    windows = tuple(_windows(fittings))
    own = fittings.at(None)
    largest = 0 if own.too_large else min(own.most_cells(model.facts.context_trained), model.facts.context_trained)
    if own.too_large:
        verdict: Verdict = "from disk" if own.fits and fittings.options.mmap else "too large"
    else:
        asked = fittings.options.context_length or model.facts.context_trained
        verdict = "fits" if largest >= min(asked, model.facts.context_trained) else "smaller context"
    chosen = own.sizes.window if own.fits else 0
    return Row(kind, file_bytes, windows, largest, chosen, verdict, kind in model.imatrix)


def _windows(fittings: _Fittings) -> Iterator[Window]:
    trained, asked = fittings.facts.context_trained, fittings.options.context_length
    most = min(trained, fittings.options.kv_cells or trained)
    for context in sorted({min(at, most) for at in (*CONTEXTS, trained)} | ({asked} if asked else set())):
        fitting = fittings.at(max(context, 2))
        attention = fitting.flash_attention()
        footprint = fitting.footprint(attention)
        yield Window(context, fitting.sizes.cells, footprint, fitting.fits and not fitting.too_large)


__all__ = ["Report", "Row", "Verdict", "Window", "fit"]
