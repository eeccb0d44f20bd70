"""What a LoRA adds to a base model, tensor by tensor, in the places and the order that llama.cpp's file has.

A pair is planned as the product that it stands for, :func:`transforms.product`, and goes through the same transforms
as the weight that it belongs to. Those carry its factors along: rows reordered are rows of ``b``, columns those of
``a``, a transpose swaps the two, a split takes rows of ``b`` for each part. What changes values leaves no factors, and
such a pair is refused. So the file's pairs and the merged weight are two readings of one object, which ``merge``
compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import plan
from .base import Base
from .encode import count_overflows, encode
from .errors import BadCheckpoint, UnknownType, UnsupportedModel
from .ggml import TYPES
from .gguf import TensorPlan
from .peft import Adapter, Pair
from .transforms import Misfit, Rows, constant, product, rows_of, scaled, stack, transpose

DTYPES = ("auto", "f32", "f16", "bf16")
EMBEDDING = "token_embd.weight"

# Weights that llama.cpp's graphs use without asking for adapters, so that a pair would load and change nothing: those
# of every architecture, and by architecture. Read in the graphs; the test that adapts all others holds it.
UNADAPTED = re.compile(r".*_norm\.weight|.*\.(ssm_conv1d|shortconv\.conv)\.weight|(position_embd|token_types)\.weight")
UNADAPTED_BY_ARCH: Mapping[str, re.Pattern[str]] = {
    "deepseek2": re.compile(r"(blk\.\d+\.attn_(q|q_a|q_b|kv_a_mqa|kv_b|k_b|v_b)|output)\.weight"),
    "gemma4": re.compile(r"per_layer_(model_proj|token_embd)\.weight"),
}
MERGE = "merge it into its base with PEFT's merge_and_unload, and convert the result"
ENCODERS_TOO = ("t5",)


@dataclass(frozen=True, slots=True)
class Addition:
    """What is added to the base's tensor ``target``: ``rows``, of its shape, which have factors.

    llama.cpp wants ``a`` and ``b`` so that ``b @ a`` is added; of the embedding ``a`` lies one row for each token.
    """

    target: str
    rows: Rows = field(repr=False)

    @property
    def halves(self) -> Mapping[str, Rows]:
        """The two tensors of the file, by name."""
        factors = self.rows.factors
        if factors is None:
            raise Misfit(f"{self.target} is no product")
        left, right = factors.left, factors.right
        a, b = (left, transpose(right)) if self.target == EMBEDDING else (right, left)
        return {f"{self.target}.lora_a": a, f"{self.target}.lora_b": b}


def additions(adapter: Adapter, base: Base) -> list[Addition]:
    """All that the adapter adds to the base, in the base's order.

    Raises:
        BadCheckpoint: the base has no such tensor, or one of another shape.
        UnsupportedModel: llama.cpp cannot add it there.
    """
    if not base.family.head or base.family.arch in ENCODERS_TOO:
        raise UnsupportedModel(f"{base.name} ({base.family.arch}) is no decoder with a language head: adapters are "
                               "used only with those", hint=MERGE)  # fmt: skip
    known = {name for group in base.sources.values() for name in group}
    pairs = {
        plan.canonical_name(f"{module}.weight", known, base.family): pair for module, pair in adapter.pairs.items()
    }
    if len(pairs) < len(adapter.pairs):
        raise BadCheckpoint("two pairs of the adapter belong to one tensor of the base")
    _refuse_strangers(pairs, known, base)
    transforms = base.family.transforms(base.config)
    return [
        _addition(target, sources, pairs, transforms, base)
        for target, sources in base.sources.items()
        if any(source in pairs for source in sources)
    ]


def is_adapted(arch: str, target: str) -> bool:
    """Whether llama.cpp's graph of an architecture asks for adapters where it uses a tensor."""
    own = UNADAPTED_BY_ARCH.get(arch)
    return not UNADAPTED.fullmatch(target) and not (own and own.fullmatch(target))


def resolve_dtype(dtype: str) -> str:
    """The element type of a ``--dtype``; auto is f32, for a pair is small. Raises :class:`UnknownType`."""
    if dtype.lower() not in DTYPES:
        raise UnknownType(f"an adapter is not stored as {dtype!r}", hint=f"choose one of {', '.join(DTYPES)}")
    return "F32" if dtype.lower() == "auto" else dtype.upper()


def tensors(found: list[Addition], dtype: str) -> list[TensorPlan]:
    """The tensors of the file, in ``dtype``."""
    return [_planned(name, rows, dtype) for addition in found for name, rows in addition.halves.items()]


def _refuse_strangers(pairs: Mapping[str, Pair], known: set[str], base: Base) -> None:
    strangers = [source for source in pairs if source not in known]
    tied = base.family.head in strangers and not base.has_own_head
    if tied:
        raise UnsupportedModel(
            f"the adapter changes {base.family.head}, and the head of {base.name} is its embedding",
            hint=f"llama.cpp cannot adapt a tied head: {MERGE}",
        )
    if strangers:
        shown = ", ".join(strangers[:5]) + (", …" if len(strangers) > 5 else "")
        raise BadCheckpoint(
            f"{len(strangers)} tensor(s) of the adapter are not in {base.name}, taken as {base.family.classes[0]}: "
            f"{shown}",
            hint="the adapter belongs to another model: name its base with --base",
        )


def _addition(
    target: str, sources: tuple[str, ...], pairs: Mapping[str, Pair], transforms: Mapping[str, Any], base: Base
) -> Addition:
    module = next(source for source in sources if source in pairs)
    shape = base.targets[target]
    arch = base.family.arch
    if not is_adapted(arch, target):
        raise UnsupportedModel(f"{module}: llama.cpp's {arch} graph would ignore an adapter for {target}", hint=MERGE)
    try:
        rows = plan.transformed(target, _gathered(sources, pairs, base), transforms)
    except Misfit as misfit:
        raise _misshapen(pairs[module], target, shape) from misfit
    if rows.shape != shape:
        raise _misshapen(pairs[module], target, shape)
    if rows.factors is None:
        raise UnsupportedModel(
            f"{module}: its values are stored changed, which no low-rank pair can follow", hint=MERGE
        )
    if target == EMBEDDING and not base.has_own_head:
        raise UnsupportedModel(
            f"the adapter changes the embedding, which is the head of {base.name}, too",
            hint=f"llama.cpp cannot adapt a tied embedding: {MERGE}",
        )
    return Addition(target, rows)


def _gathered(sources: tuple[str, ...], pairs: Mapping[str, Pair], base: Base) -> Rows:
    """The products of a target's pairs; for experts that have none a product of nothing, all of one rank."""
    present = {source: pairs[source] for source in sources if source in pairs}
    rank = max(pair.rank for pair in present.values())
    deltas = {source: _delta(source, pair, rank, base) for source, pair in present.items()}
    shape = next(iter(deltas.values())).shape
    parts = [deltas.get(source) or product(_zeros(shape[0], rank), _zeros(rank, shape[1])) for source in sources]
    return stack(parts) if len(parts) > 1 else parts[0]


def _delta(source: str, pair: Pair, rank: int, base: Base) -> Rows:
    """What the pair adds to the source tensor as the checkpoint stores that; the scale goes into ``b``."""
    a, b = scaled(rows_of(pair.a), 1.0), scaled(rows_of(pair.b), pair.scale)
    if pair.rank < rank:
        a, b = _widened(a, rank), transpose(_widened(transpose(b), rank))
    if pair.embedding or (base.family.conv1d and re.fullmatch(base.family.conv1d, source)):
        return product(transpose(a), transpose(b))
    return product(b, a)


def _widened(a: Rows, rank: int) -> Rows:
    """``a`` with rows of zeros up to ``rank``."""
    return constant(np.concatenate([*a.chunks(), np.zeros((rank - a.shape[0], a.shape[1]), np.float32)]))


def _zeros(*shape: int) -> Rows:
    return constant(np.zeros(shape, np.float32))


def _misshapen(pair: Pair, target: str, shape: tuple[int, ...]) -> BadCheckpoint:
    return BadCheckpoint(
        f"the pair of {pair.module} ({pair.b.shape} @ {pair.a.shape}) does not fit {target} of {shape}",
        hint="the adapter belongs to another model: name its base with --base",
    )


def _planned(name: str, rows: Rows, dtype: str) -> TensorPlan:
    return TensorPlan(name, rows.shape, TYPES[dtype], lambda: _encoded(name, rows, dtype))


def _encoded(name: str, rows: Rows, dtype: str) -> Iterator[NDArray[Any]]:
    """Chunk by chunk. Raises :class:`UnsupportedModel` after a tensor that overflowed."""
    lost = 0
    for chunk in rows.chunks():
        encoded = encode(chunk, rows.dtype, dtype)
        lost += count_overflows(chunk, encoded) if dtype == "F16" and rows.dtype != "F16" else 0
        yield encoded
    if lost:
        raise UnsupportedModel(f"{lost:,} values of {name} are too large for f16", hint="convert with --dtype f32")
