"""What a quantization will produce, decided by llama.cpp itself before any weight is read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..convert import gguf
from ..convert.errors import EngineError, InputError
from ..convert.ggml import TYPES as TENSOR_TYPES
from ..convert.ggml import GGMLType
from . import native, types
from .choices import Choices, require_effect, require_importance

PLANNED_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[[^\]]*\], type = *(?P<old>\w+), size =[^(\n]*(?:\((?P<new>\w+)\))?$",
    re.MULTILINE,
)
NATIVE_ALIGNMENT = 32
REQUANTIZE = "start from a 16- or 32-bit file; where there is none, --requantize accepts a double loss"


@dataclass(frozen=True, slots=True)
class Fallback:
    """A matrix whose rows of ``width`` values do not divide into the blocks of its type, so it gets another one."""

    tensor: str
    width: int
    given: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of quantizing ``source`` to ``type``: each tensor's type, and the exact size of the file.

    unweighted: weights that are quantized without importance, although there is an importance matrix.
    """

    source: gguf.GGUF
    type: types.Type
    requantize: bool
    tensors: Mapping[str, GGMLType]
    size_bytes: int
    fallbacks: tuple[Fallback, ...]
    choices: Choices
    unweighted: tuple[str, ...] = ()

    def job(self, out: str, threads: int) -> native.Job:
        """What to ask llama.cpp for."""
        return _job(self.source.path, out, self.type, self.choices, threads=threads, requantize=self.requantize)

    @property
    def bits_per_weight(self) -> float:
        """Average over the whole file: all tensors and the metadata."""
        return 8 * self.size_bytes / sum(math.prod(info.shape) for info in self.source.tensors.values())


def plan(source: Path, type_name: str, *, requantize: bool = False, choices: Choices | None = None) -> Plan:
    """Check ``source`` and plan its quantization. No weight is read, nothing is written.

    Raises:
        UnknownType: no such type. BadGGUF: the source is broken, or llama.cpp refuses it.
        InputError: the type needs an importance matrix, or the one given is of another model; a choice changes
            nothing; the source is already quantized and ``requantize`` is False; it is one part of several, or laid
            out in a way that llama.cpp cannot rewrite.
    """
    chosen = choices or Choices()
    kind = types.find(type_name) if chosen.imatrix else types.require_usable(type_name)
    file = gguf.read(source)
    _require_quantizable(file)
    if not requantize:
        require_unquantized(file)
    job = _job(source, "", kind, chosen, requantize=requantize)
    tensors = planned_types(native.run(replace(job, dry_run=True)))
    if tensors.keys() != file.tensors.keys():
        raise EngineError(
            f"the installed llama.cpp planned {len(tensors)} of the {len(file.tensors)} tensors of {source}",
            hint="its reports are worded in an unknown way; install the llama-cpp-python that ingle was tested with",
        )
    require_effect(chosen, file, tensors)
    unweighted = require_importance(chosen, file, tensors, strict_q2_k=kind.name == "Q2_K_S")
    size_bytes = _size(file, kind, tensors, chosen)
    return Plan(
        file, kind, requantize, tensors, size_bytes, _fallbacks(file, kind, tensors, chosen), chosen, unweighted
    )


def _job(
    source: Path, out: str, kind: types.Type, chosen: Choices, *, threads: int = 0, requantize: bool = False
) -> native.Job:
    return native.Job(
        source=str(source),
        out=out,
        native_id=kind.native_id,
        threads=threads,
        requantize=requantize,
        imatrix=str(chosen.imatrix.path) if chosen.imatrix else "",
        overrides=[(override.pattern, override.type.id) for override in chosen.overrides],
        output_type=chosen.output.id if chosen.output else -1,
        embedding_type=chosen.embedding.id if chosen.embedding else -1,
        pure=chosen.pure,
        notes=chosen.notes,
    )


def planned_types(log: str) -> dict[str, GGMLType]:
    """Tensor name → type, from the log of a dry run."""
    found = (match.group("name", "old", "new") for match in PLANNED_TENSOR.finditer(log))
    return {name: TENSOR_TYPES[(new or old).upper()] for name, old, new in found}


def _require_quantizable(file: gguf.GGUF) -> None:
    kind = file.metadata.get("general.type")
    if kind == "imatrix":
        raise InputError(f"{file.path} is an importance matrix, not a model", hint="it is given with --imatrix")
    if kind == "mmproj" or file.metadata.get("general.architecture") == "clip":
        raise InputError(
            f"{file.path} is the vision part of a model, which is never quantized", hint="quantize its language model"
        )
    if kind == "adapter":
        raise InputError(f"{file.path} is an adapter, which is small already", hint="quantize its base instead")
    parts = file.metadata.get("split.count", 1)
    if isinstance(parts, str | list) or int(parts) > 1:
        raise InputError(
            f"{file.path} is one part of a model in {parts} files", hint="merge the parts into one file first"
        )
    if not file.tensors:
        raise InputError(f"{file.path} has no tensors, only metadata: there is nothing to quantize")
    if file.alignment != NATIVE_ALIGNMENT:
        raise InputError(
            f"{file.path} is aligned to {file.alignment} bytes; llama.cpp's quantizer writes {NATIVE_ALIGNMENT} only",
            hint="convert the checkpoint again",
        )


def require_unquantized(file: gguf.GGUF, hint: str = REQUANTIZE) -> None:
    """Raise :class:`InputError` for a file with weights in blocks."""
    quantized = next((info for info in file.tensors.values() if info.type.block > 1), None)
    if quantized is not None:
        raise InputError(f"{file.path} is already quantized: {quantized.name} is {quantized.type.name}", hint=hint)


def _size(file: gguf.GGUF, kind: types.Type, tensors: Mapping[str, GGMLType], chosen: Choices) -> int:
    metadata = {**file.metadata, **added_metadata(kind, chosen)}
    plans = [
        gguf.TensorPlan(info.name, trimmed(info.shape), tensors[info.name], tuple) for info in file.tensors.values()
    ]
    padded = (-(-plan.nbytes // NATIVE_ALIGNMENT) * NATIVE_ALIGNMENT for plan in plans)
    return len(gguf.header(metadata, plans)) + sum(padded)


def added_metadata(kind: types.Type, chosen: Choices) -> dict[str, gguf.Value]:
    """What a quantization writes into the metadata, in its order: llama.cpp puts all of it behind what was there."""
    return {"general.quantization_version": 2, "general.file_type": kind.native_id, **chosen.notes}


def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading ones: llama.cpp does not store them."""
    first = next((axis for axis, length in enumerate(shape[:-1]) if length > 1), len(shape) - 1)
    return shape[first:]


def _fallbacks(
    file: gguf.GGUF, kind: types.Type, tensors: Mapping[str, GGMLType], chosen: Choices
) -> tuple[Fallback, ...]:
    return tuple(
        Fallback(info.name, info.shape[-1], tensors[info.name].name)
        for info in file.tensors.values()
        if tensors[info.name] is not info.type and info.shape[-1] % chosen.asked(info.name, kind.tensor_type).block
    )
