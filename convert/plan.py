"""What a conversion will write, decided from headers and configs before a byte of a tensor is read."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fp8, names, shapes
from .attach import Attached
from .config import Config
from .encode import clipped, count_overflows, encode
from .errors import BadCheckpoint, UnknownType, UnsupportedModel
from .families import Family
from .families.family import Transform
from .ggml import TYPES, GGMLType
from .gguf import TensorPlan
from .tensor import FLOATS, Tensor
from .transforms import Misfit, Rows, constant, rows_of, stack

DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
HEAD_TARGET = "output.weight"
ALWAYS_F32 = re.compile(
    r".*_norm\.weight|(position_embd|token_types)\.weight|.*\.(ffn_gate_inp|ssm_conv1d|shortconv\.conv)\.weight|.*(?<!\.weight)"
)
TIED = "tied to the embedding"
TWIN = "a second copy of what the head has"
COUNTED_AS = {"F64": "F32", **dict.fromkeys(fp8.DTYPES, "BF16")}


@dataclass(frozen=True, slots=True)
class Matched:
    """Which source tensors become which target (several: its experts), and which are left out, with the reason.

    shapes: of the targets that are a head's, which the head knows.
    """

    sources: Mapping[str, tuple[Tensor, ...]]
    dropped: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def match(tensors: Mapping[str, Tensor], family: Family, config: Config, attached: Attached | None = None) -> Matched:
    """Find the sources of every target, but for what belongs to a head that is stored as metadata.

    Raises:
        BadCheckpoint: a tensor is missing, has another shape than the config says, or nothing maps it.
        UnsupportedModel: a tensor has a dtype that is not a plain float.
    """
    native = attached.native if attached else {}
    wanted = required_sources(family, config)
    optional = {target: sources for target, sources in optional_sources(family, config).items() if target not in native}
    known = {source for table in (wanted, optional) for sources in table.values() for source in sources}
    twins = dict.fromkeys(attached.twins, TWIN) if attached else {}
    heads = attached.names if attached else set()
    found: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    unmapped: list[str] = []
    for name, tensor in tensors.items():
        if name in heads or name in twins:
            continue
        canonical = canonical_name(name, known, family)
        if canonical in known and canonical not in found:
            found[canonical] = tensor
        elif reason := _dropped(name, canonical, family, config):
            dropped[name] = reason
        else:
            unmapped.append(name)
    present = {target: sources for target, sources in optional.items() if any(source in found for source in sources)}
    targets = wanted | present
    required = dict.fromkeys(source for sources in targets.values() for source in sources)
    _refuse(unmapped, "that nothing maps", family)
    _refuse([name for name in required if name not in found], "missing", family)
    sources = {target: tuple(found[source] for source in sources) for target, sources in targets.items()}
    sources |= {target: (tensor,) for target, tensor in native.items()}
    if (config.tied or not family.head) and not family.tied_head and HEAD_TARGET not in sources:
        sources[HEAD_TARGET] = (found[family.embedding],)
    return Matched(sources, twins | dropped, attached.native_shapes if attached else {})


def source_dtype(matched: Matched) -> str:
    """The dtype that most bytes of the checkpoint are in; f64 counts as f32, 8-bit floats as the bf16 they were."""
    sizes: Counter[str] = Counter()
    for tensor in {tensor.name: tensor for tensors in matched.sources.values() for tensor in tensors}.values():
        sizes[COUNTED_AS.get(tensor.dtype, tensor.dtype)] += tensor.nbytes
    return sizes.most_common(1)[0][0]


def resolve_dtype(dtype: str, matched: Matched) -> str:
    """The element type of a ``--dtype``. Raises :class:`UnknownType`."""
    if dtype.lower() not in DTYPES:
        raise UnknownType(f"there is no dtype {dtype!r}", hint=f"choose one of {', '.join(DTYPES)}")
    return source_dtype(matched) if dtype.lower() == "auto" else dtype.upper()


@dataclass(slots=True)
class Overflow:
    """What becomes of values beyond the range of f16, and how many there were in each tensor that was written.

    clip: store the largest that there is, not infinity.
    """

    clip: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def require_none(self) -> None:
        """Raises :class:`UnsupportedModel` when there were some that were not to be clipped."""
        if self.counts and not self.clip:
            tensor, most = self.counts.most_common(1)[0]
            others = f", {most:,} of them in {tensor}" if len(self.counts) > 1 else f" of {tensor}"
            raise UnsupportedModel(
                f"{self.counts.total():,} values{others} are too large for f16, which ends at 65,504",
                hint="convert with --dtype bf16 (or f32), or with --clip, which stores them as the largest of f16",
            )


@dataclass(frozen=True, slots=True)
class RowsPlan(TensorPlan):
    """A tensor of ``height`` rows (of a vector its elements) that can be read in any order.

    ``encoded(start, stop)`` are some of them, in the tensor's type; ``release()`` lets go of the memory that took.
    """

    height: int
    encoded: Callable[[int, int], NDArray[Any]] = field(repr=False, compare=False)
    release: Callable[[], None] = field(repr=False, compare=False)


def tensors(
    matched: Matched, family: Family, config: Config, dtype: str, overflow: Overflow | None = None
) -> list[RowsPlan]:
    """All tensors of the file, in the order they are written: the layers' before those of the end, as shards arrive.

    Raises:
        BadCheckpoint: a tensor has a shape that the config does not give it.
    """
    overflow = overflow or Overflow()
    transforms, own_shapes = family.transforms(config), {**family.shapes(config), **matched.shapes}
    plans = [_planned(target, constant(values), dtype, overflow) for target, values in family.computed(config).items()]
    for target, sources in sorted(matched.sources.items(), key=_comes_last):
        expected = shapes.expected(target, config, own_shapes)
        try:
            rows = transformed(target, _gathered(sources), transforms)
        except Misfit as misfit:
            raise _misshapen(sources[0], target, expected) from misfit
        if rows.shape != expected:
            raise _misshapen(sources[0], target, expected)
        plans.append(_planned(target, rows, _fixed(target, family) or dtype, overflow))
    return plans


def _comes_last(item: tuple[str, tuple[Tensor, ...]]) -> bool:
    return item[0].startswith("output")


def required_sources(family: Family, config: Config) -> dict[str, tuple[str, ...]]:
    """Target -> source names of every tensor that a checkpoint must have."""
    return _expanded({**family.tensors(config), **_head(family, config)}, config)


def optional_sources(family: Family, config: Config) -> dict[str, tuple[str, ...]]:
    """Target -> source names of tensors that a checkpoint may have."""
    return _expanded(family.optional(config), config)


def _expanded(table: names.Names, config: Config) -> dict[str, tuple[str, ...]]:
    counts = {"expert": config.num_experts, "head": config.num_heads, "kv_head": config.num_kv_heads}
    return names.expand(table, config.num_layers, counts)


def _head(family: Family, config: Config) -> dict[str, str]:
    return {} if config.tied or not family.head else {family.head: HEAD_TARGET}


def _gathered(sources: tuple[Tensor, ...]) -> Rows:
    parts = [_readable(tensor) for tensor in sources]
    return stack(parts) if len(parts) > 1 else parts[0]


def canonical_name(name: str, known: Set[str], family: Family) -> str:
    """The name a tensor has in the family's table: in its spelling, without a vision model's wrapper, with the root."""
    plain = spelled(name.replace("language_model.", "", 1), family)
    return family.root + plain if plain not in known and family.root + plain in known else plain


def spelled(name: str, family: Family) -> str:
    """The name as the family's table spells it."""
    for spelling, ours in family.spellings.items():
        name = re.sub(spelling, ours, name)
    return name


def _dropped(name: str, canonical: str, family: Family, config: Config) -> str:
    if family.head and canonical == family.head and config.tied:
        return TIED
    number = re.match(r"model\.layers\.(\d+)\.", canonical)
    if family.surplus_layers and number and int(number[1]) >= config.num_layers:
        return family.surplus_layers
    if name.endswith(fp8.ACTIVATION_SCALES):
        return "a scale of activations, which are not quantized here"
    return next((reason for rule, reason in family.dropped.items() if re.fullmatch(rule, name)), "")


def _refuse(tensors: list[str], what: str, family: Family) -> None:
    if tensors:
        shown = ", ".join(tensors[:5]) + (", …" if len(tensors) > 5 else "")
        raise BadCheckpoint(
            f"{len(tensors)} tensor(s) {what}, taking the checkpoint as {family.classes[0]}: {shown}",
            hint="the checkpoint is incomplete, was changed by hand, or belongs to another architecture",
        )


def _readable(tensor: Tensor) -> Rows:
    if tensor.dtype not in FLOATS:
        raise UnsupportedModel(
            f"tensor {tensor.name} is stored as {tensor.dtype}; {', '.join(sorted(FLOATS))} can be converted",
            hint="a quantized checkpoint cannot be converted: use the original one",
        )
    return rows_of(tensor)


def _misshapen(tensor: Tensor, target: str, expected: tuple[int, ...]) -> BadCheckpoint:
    return BadCheckpoint(
        f"tensor {tensor.name} has shape {tensor.shape}, where the config asks for {target} of {expected}",
        hint="config.json and the tensors come from different models, or one of them is damaged",
    )


def transformed(target: str, rows: Rows, transforms: Mapping[str, Transform]) -> Rows:
    """What the family does to a tensor on its way to ``target``. Raises :class:`Misfit`."""
    for pattern, transform in transforms.items():
        if re.fullmatch(pattern, target):
            rows = transform(rows)
    return rows


def _element(target: str, shape: tuple[int, ...], dtype: str) -> GGMLType:
    """Vectors, norms and positions stay f32, as llama.cpp's kernels expect; rows that no block divides become f16."""
    if len(shape) < 2 or ALWAYS_F32.fullmatch(target):
        return TYPES["F32"]
    element = TYPES[dtype]
    return TYPES["F16"] if shape[-1] % element.block else element


def _fixed(target: str, family: Family) -> str:
    """The element type that a tensor of the family always has, if there is one."""
    return next((element for pattern, element in family.elements.items() if re.fullmatch(pattern, target)), "")


def _planned(target: str, rows: Rows, dtype: str, overflow: Overflow) -> RowsPlan:
    element = _element(target, rows.shape, dtype)

    def encoded(start: int, stop: int) -> NDArray[Any]:
        return _encoded(target, rows.read(start, stop), rows.dtype, element.name, overflow)

    def chunks() -> Iterator[NDArray[Any]]:
        for start, stop in rows.spans():
            yield encoded(start, stop)
            rows.release()

    return RowsPlan(target, rows.shape, element, chunks, rows.height, encoded, rows.release)


def _encoded(target: str, chunk: NDArray[Any], dtype: str, element: str, overflow: Overflow) -> NDArray[Any]:
    """Some rows of a tensor, of dtype ``dtype``, as they are written."""
    encoded = encode(chunk, dtype, element)
    if element == "F16" and dtype != "F16" and (lost := count_overflows(chunk, encoded)):
        overflow.counts[target] += lost
        encoded = clipped(chunk, dtype) if overflow.clip else encoded
    return encoded


def num_parameters(plans: Sequence[TensorPlan]) -> int:
    return sum(math.prod(plan.shape) for plan in plans)


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    pairs = zip(rows_of(one).chunks(), rows_of(other).chunks(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
