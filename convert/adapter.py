"""From a PEFT adapter to a GGUF adapter: look, plan on its base, write, prove, and only then give the file its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import base as bases
from . import gguf, lora, metadata, modelcard, peft, plan, report
from .base import Base
from .encode import to_f32
from .errors import BadCheckpoint, IngleError, InputError, UnsupportedModel
from .files import appearing, require_space
from .gguf import TensorPlan, Value
from .lora import Addition
from .merge import Merge, compare
from .peft import Adapter
from .progress import Progress, silent
from .report import Item, Report
from .tensor import Tensor
from .transforms import rows_of

HUB = "https://huggingface.co/"
TYPE_KEY, LORA = "general.type", "adapter"
BASE_NAME_KEY = "general.base_model.0.name"
PROOF_WEIGHTS_KEY, PROOF_ERROR_KEY = "ingle.adapter.proof.weights", "ingle.adapter.proof.largest_error"
PROOF_LOADED_KEY = "ingle.adapter.proof.loaded"


@dataclass(frozen=True, slots=True)
class AdapterConversion:
    """A finished conversion. ``merge`` is what was proven of it; ``warnings`` is what a person should know."""

    path: Path
    size_bytes: int
    architecture: str
    base: str
    dtype: str
    num_tensors: int
    num_parameters: int
    ranks: tuple[int, ...]
    merge: Merge
    loaded: bool
    warnings: tuple[Item, ...]


class AdapterSource:
    """A PEFT folder seen as what it will become on one base. Each property raises what is wrong with it."""

    def __init__(self, folder: Path, base: Path, dtype: str) -> None:
        self.folder = folder
        self._base = base
        self._dtype = dtype

    @cached_property
    def adapter(self) -> Adapter:
        return peft.read(self.folder)

    @cached_property
    def readings(self) -> tuple[Base, ...]:
        return bases.read(self._base)

    @cached_property
    def base(self) -> Base:
        """The reading of the base that the adapter fits."""
        return self._fit[0]

    @cached_property
    def additions(self) -> list[Addition]:
        return self._fit[1]

    @cached_property
    def _fit(self) -> tuple[Base, list[Addition]]:
        """Of several readings the one that has all that the adapter changes; where several have, they must agree."""
        fits: list[tuple[Base, list[Addition]]] = []
        failure: IngleError | None = None
        for base in self.readings:
            try:
                fits.append((base, lora.additions(self.adapter, base)))
            except (BadCheckpoint, UnsupportedModel) as error:
                failure = failure or error
        if not fits:
            raise failure or BadCheckpoint("the base is no model")
        if any(not _alike(fits[0][1], other) for _, other in fits[1:]):
            raise UnsupportedModel(
                f"{self._base} does not say how it was made from its checkpoint, and the adapter depends on that",
                hint="name the base's checkpoint with --base: a folder, or its name on the hub",
            )
        self._check_copies(fits[0][0])
        return fits[0]

    @cached_property
    def dtype(self) -> str:
        return lora.resolve_dtype(self._dtype)

    @cached_property
    def plans(self) -> list[TensorPlan]:
        return lora.tensors(self.additions, self.dtype)

    @cached_property
    def metadata(self) -> dict[str, Value]:
        """All keys of the file but the proof. The scales are in the tensors: ``alpha`` 0 tells llama.cpp so."""
        card = modelcard.read(self.folder)
        licence = modelcard.first(card, "license")
        repository = (
            self.adapter.base if self.adapter.base.count("/") == 1 and self.adapter.base[0] not in "./~" else ""
        )
        return {
            "general.architecture": self.base.family.arch,
            TYPE_KEY: LORA,
            **metadata.identity(metadata.model_id(self.folder)),
            **({"general.license": licence} if licence else {}),
            "general.base_model.count": 1,
            BASE_NAME_KEY: self.base.name,
            **({"general.base_model.0.repo_url": HUB + repository} if repository else {}),
            "general.file_type": metadata.FILE_TYPES[self.dtype],
            "general.quantization_version": metadata.QUANTIZATION_VERSION,
            "adapter.type": "lora",
            "adapter.lora.alpha": 0.0,
        }

    @property
    def size_bytes(self) -> int:
        return len(gguf.header(self.metadata, self.plans)) + sum(tensor.nbytes for tensor in self.plans)

    def _check_copies(self, base: Base) -> None:
        """PEFT stores the base's weight beside a trained embedding; one that was resized or trained is no LoRA."""
        for module, copy in self.adapter.copies.items():
            weight = base.weights.get(plan.canonical_name(f"{module}.weight", base.weights.keys(), base.family))
            if weight is None:
                raise UnsupportedModel(
                    f"the adapter brings {module} along, which cannot be compared with {base.path}",
                    hint="name the base's checkpoint folder with --base, or save with save_embedding_layers=False",
                )
            if not _same_values(copy, weight):
                raise UnsupportedModel(
                    f"the adapter brings a {module} of its own, which is not that of {base.name}",
                    hint="merge it into its base with PEFT's merge_and_unload, and convert the result",
                )


def _same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, whatever they are stored as."""
    if one.shape != other.shape:
        return False
    mine, theirs = rows_of(one), rows_of(other)
    pairs = zip(mine.chunks(), theirs.chunks(), strict=True)
    return all(np.array_equal(to_f32(ours, mine.dtype), to_f32(its, theirs.dtype)) for ours, its in pairs)


def _alike(one: Sequence[Addition], other: Sequence[Addition]) -> bool:
    """Whether two readings of a base give the same tensors."""
    mine, theirs = ({name: rows for addition in found for name, rows in addition.halves.items()}
                    for found in (one, other))  # fmt: skip
    return mine.keys() == theirs.keys() and all(
        np.array_equal(ours, its)
        for name, rows in mine.items()
        for ours, its in zip(rows.chunks(), theirs[name].chunks(), strict=True)
    )


def check_adapter(folder: Path, base: Path, dtype: str = "auto") -> Report:
    """A verdict per item, from configs and headers only; nothing is written. Never raises for what is wrong."""
    return report.look(AdapterSource(folder, base, dtype), ASPECTS)


def convert_adapter(
    folder: Path,
    base: Path,
    out: Path,
    dtype: str = "auto",
    *,
    prove: Callable[[Path, Path], None] | None = None,
    progress: Progress = silent,
) -> AdapterConversion:
    """Convert an adapter folder to a GGUF adapter for ``base``, a checkpoint folder or a GGUF file.

    What is written is compared with PEFT's merge (:mod:`.merge`) and given to ``prove`` (its temporary path, and that
    of the base, which loads it) before ``out`` exists; the verdict becomes part of the file. Whatever goes wrong leaves
    nothing behind.

    Args:
        dtype: auto (f32), f32, f16 or bf16.

    Raises:
        BadCheckpoint, UnsupportedModel, BadGGUF: what ``check_adapter`` reports, before anything is written.
        UnknownType: no such dtype. InputError: ``out`` is a folder or a file of the adapter.
        VerificationFailed: the file adds something else than PEFT's merge; or from ``prove``.
        DiskFull, StorageError: the file could not be written.
    """
    source = AdapterSource(folder, base, dtype)
    items = [item for _, look in ASPECTS for item in look(source)]
    _check_out(source, out)
    require_space(out.parent, source.size_bytes)
    with appearing(out) as partial:
        gguf.write(partial, source.metadata, source.plans, progress)
        merge = compare(source.additions, partial, progress)
        if prove is not None:
            prove(partial, base)
        gguf.write(partial, source.metadata | _proof(merge, loaded=prove is not None), source.plans)
    return AdapterConversion(
        path=out,
        size_bytes=out.stat().st_size,
        architecture=source.base.family.arch,
        base=source.base.name,
        dtype=source.dtype,
        num_tensors=len(source.plans),
        num_parameters=plan.num_parameters(source.plans),
        ranks=tuple(source.adapter.ranks),
        merge=merge,
        loaded=prove is not None,
        warnings=tuple(item for item in items if item.verdict == "warn"),
    )


def _proof(merge: Merge, *, loaded: bool) -> dict[str, Value]:
    return {PROOF_WEIGHTS_KEY: merge.weights, PROOF_ERROR_KEY: merge.largest_error, PROOF_LOADED_KEY: loaded}


def _check_out(source: AdapterSource, out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder", hint="name the GGUF file to write")
    if out.resolve() in {path.resolve() for path in (source.base.path, *source.folder.iterdir()) if path.exists()} and (
        out.suffix != ".gguf" or out.resolve() == source.base.path.resolve()
    ):
        raise InputError(f"{out} is a file of the adapter or its base", hint="name another file to write")


def _adapter(source: AdapterSource) -> Iterator[Item]:
    adapter = source.adapter
    ranks, scales = (", ".join(f"{value:g}" for value in values) for values in (adapter.ranks, adapter.scales))
    kind = "rsLoRA" if adapter.rsLoRA else "LoRA"
    yield Item("adapter", "ok", f"{kind} on {len(adapter.pairs)} modules, rank {ranks}, scale {scales}")


def _base(source: AdapterSource) -> Iterator[Item]:
    said, base = source.adapter.base, source.base
    yield Item("base", "ok", f"{base.name} ({base.family.arch})")
    names = (said, base.name, base.path.resolve().name, metadata.model_id(base.path))
    told, *known = (_plain(name) for name in names)
    if told and told not in known:
        yield Item("base", "warn", f"the adapter was trained on {said}, and is converted for {base.name}",
                   hint="it works only on a base with the same weights")  # fmt: skip


def _plain(name: str) -> str:
    """The last part of a name, without what spellings differ in."""
    return "".join(char for char in name.rstrip("/").rpartition("/")[2].lower() if char.isalnum())


def _tensors(source: AdapterSource) -> Iterator[Item]:
    yield Item(
        "tensors", "ok", f"{len(source.plans)} for {len(source.additions)} of {len(source.base.targets)} weights"
    )


def _size(source: AdapterSource) -> Iterator[Item]:
    label = metadata.size_label(plan.num_parameters(source.plans))
    yield Item("size", "ok", f"{label} parameters, {source.size_bytes:,} bytes as {source.dtype}")


ASPECTS: tuple[tuple[str, Callable[[AdapterSource], Iterator[Item]]], ...] = (
    ("adapter", _adapter),
    ("base", _base),
    ("tensors", _tensors),
    ("size", _size),
)


def described(values: Mapping[str, Any]) -> str:
    """The proof that a file's metadata tells of, in words; empty where it has none."""
    if PROOF_WEIGHTS_KEY not in values:
        return ""
    return proven(Merge(int(values[PROOF_WEIGHTS_KEY]), float(values[PROOF_ERROR_KEY])), bool(values[PROOF_LOADED_KEY]))


def proven(merge: Merge, loaded: bool) -> str:
    """What was proven, in words."""
    near = f"within {merge.largest_error:.1g} of what it adds" if merge.largest_error else "to the bit"
    rest = ", loaded by llama.cpp" if loaded else ""
    return f"equal to PEFT's merge in {merge.weights:,} weights ({near}){rest}"
