"""What can be chosen about a quantization beside its type: an importance matrix, and the types of single tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..convert import gguf
from ..convert.errors import InputError
from ..convert.ggml import GGMLType, named
from .imatrix import Imatrix

NOT_FOR_WEIGHTS = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "NVFP4"})
NEED_IMPORTANCE = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
EXEMPT = frozenset({"token_embd.weight", "per_layer_token_embd.weight", "output.weight"})
"""Weights that llama.cpp quantizes to any type without an importance matrix, and for which few matrices have values."""

MOST_NOTE_BYTES = 127


@dataclass(frozen=True, slots=True)
class Override:
    """Weights whose name holds ``pattern``, a regular expression, get ``type``. The first override that fits counts."""

    pattern: str
    type: GGMLType

    @classmethod
    def parse(cls, text: str) -> Override:
        """``REGEX=TYPE``. Raises :class:`InputError` or :class:`UnknownType`."""
        pattern, equals, type_name = text.rpartition("=")
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(f"{pattern!r} is no regular expression: {error}", param="tensor_type") from error
        if not equals or not pattern:
            raise InputError(f"{text!r} is not REGEX=TYPE, for instance ffn_down=q6_k", param="tensor_type")
        return cls(pattern, weight_type(type_name))

    def fits(self, name: str) -> bool:
        return re.search(self.pattern, name) is not None


@dataclass(frozen=True, slots=True)
class Choices:
    """output, embedding: the types of the output and the embedding matrix. pure: no weight gets more than the type
    asked for."""

    imatrix: Imatrix | None = None
    overrides: tuple[Override, ...] = ()
    output: GGMLType | None = None
    embedding: GGMLType | None = None
    pure: bool = False

    def asked(self, name: str, usual: GGMLType) -> GGMLType:
        """The type that was asked for a weight; ``usual`` where nobody named it."""
        if self.output and name == "output.weight":
            return self.output
        if self.embedding and name == "token_embd.weight":
            return self.embedding
        return next((override.type for override in self.overrides if override.fits(name)), usual)

    @property
    def notes(self) -> dict[str, str | int]:
        """Metadata that says what was used: llama-quantize's keys, and the checksum of the importance matrix."""
        if self.imatrix is None:
            return {}
        matrix = self.imatrix.matrix
        texts = {
            "quantize.imatrix.file": self.imatrix.path.name,
            "quantize.imatrix.dataset": matrix.datasets[0] if matrix.datasets else "",
            "ingle.imatrix.sha256": self.imatrix.sha256,
            "ingle.imatrix.corpus_sha256": matrix.corpus_sha256,
        }
        kept = {key: text for key, text in texts.items() if 0 < len(text.encode()) <= MOST_NOTE_BYTES}
        counts = {
            "quantize.imatrix.entries_count": len(matrix.entries),
            "quantize.imatrix.chunks_count": matrix.chunk_count,
        }
        return {**kept, **counts}


def weight_type(name: str) -> GGMLType:
    """An element type that weights can have, in any case. Raises :class:`UnknownType` or :class:`InputError`."""
    element = named(name.strip())
    if element.name in NOT_FOR_WEIGHTS:
        raise InputError(f"weights cannot be stored as {element.name}", param="tensor_type")
    return element


def require_effect(choices: Choices, file: gguf.GGUF, planned: Mapping[str, GGMLType]) -> None:
    """Raise :class:`InputError` for a choice that changes nothing: nothing that was asked for is ignored."""
    for override in choices.overrides:
        reached = [
            info
            for name, info in file.tensors.items()
            if override.fits(name) and choices.asked(name, planned[name]) is override.type
        ]
        if not any(_is_given(info, planned[info.name], override.type) for info in reached):
            raise InputError(
                f"--tensor-type {override.pattern}={override.type.name} changes nothing: no weight that is quantized "
                "and left to it has such a name",
                hint="`ingle quantize FILE --dry-run --json` lists the names; vectors and norms are never quantized",
                param="tensor_type",
            )
    for name, element in (("output.weight", choices.output), ("token_embd.weight", choices.embedding)):
        if element and name not in file.tensors:
            raise InputError(
                f"{file.path} has no {name}, whose type was asked for",
                hint="its output is its embedding: use --embedding-type" if name == "output.weight" else "",
            )


def _is_given(info: gguf.TensorInfo, planned: GGMLType, wanted: GGMLType) -> bool:
    """Also when its rows do not divide into the blocks of the type, which the plan's fallbacks report."""
    return planned is wanted or (len(info.shape) > 1 and info.shape[-1] % wanted.block > 0)


def require_importance(
    choices: Choices, file: gguf.GGUF, planned: Mapping[str, GGMLType], *, strict_q2_k: bool
) -> tuple[str, ...]:
    """The weights that are quantized without importance although there is a matrix.

    strict_q2_k: Q2_K, too, needs importance, as in Q2_K_S files.

    Raises:
        InputError: the matrix is of another model, or a type needs importance that a weight does not have.
    """
    matrix = choices.imatrix.matrix if choices.imatrix else None
    entries = matrix.entries if matrix else {}
    changed = [info for info in file.tensors.values() if planned[info.name] is not info.type]
    if choices.imatrix and changed and not any(info.name in entries for info in file.tensors.values()):
        raise InputError(f"{choices.imatrix.path} has importance for none of the weights of {file.path}")
    for info in changed:
        have = entries[info.name].sums.size if info.name in entries else _inputs(info)
        if have != _inputs(info):
            raise InputError(
                f"the importance matrix is of another model: it has {have} values for {info.name}, which has "
                f"{_inputs(info)} inputs",
                param="imatrix",
            )
    missing = [info.name for info in changed if info.name not in entries and info.name not in EXEMPT]
    demanding = NEED_IMPORTANCE | ({"Q2_K"} if strict_q2_k else set())
    for name in missing:
        if planned[name].name in demanding:
            raise InputError(
                f"{name} as {planned[name].name} needs an importance matrix"
                + (", and this one has no values for it" if matrix else ""),
                hint="make one: ingle imatrix MODEL --on TEXT, then --imatrix FILE",
                param="imatrix",
            )
    return tuple(missing) if matrix else ()


def _inputs(info: gguf.TensorInfo) -> int:
    return info.shape[-1] * (info.shape[-3] if len(info.shape) > 2 else 1)
