"""A head's tensors, found in a checkpoint, and what the file says about the head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Config, number
from .encode import to_f32
from .errors import BadCheckpoint, UnsupportedModel
from .gguf import MAX_ARRAY_LENGTH, Value
from .heads import ANSWER, CHOICE, FEATURES, MASK, RELEVANCE, REPLACED, Head, Pooling, Step
from .tensor import FLOATS, Tensor
from .transforms import rows_of

KEY = "ingle.head"
# As much as a dense layer from 768 to 3,072 and one back, thrice; llama.cpp and our reader hold metadata in memory.
MOST_BYTES = 32 << 20
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh")
UNLABELLED = (ANSWER, CHOICE, FEATURES, MASK, RELEVANCE, REPLACED)
POOLING_TYPES: Mapping[str, int] = {"mean": 1, "first": 2, "last": 3}
RANK = 4  # llama.cpp's pooling type that runs a classifier


@dataclass(frozen=True, slots=True)
class Layer:
    """``weight`` is None where it is the token embedding. rows: only these of a tensor of the model."""

    weight: Tensor | None
    bias: Tensor | None
    rows: tuple[int, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those that are of the head alone."""
        owned = (None if self.rows else self.weight, self.bias)
        return tuple(tensor for tensor in owned if tensor is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight, as it is stored; empty where it is the token embedding."""
        stored = self.weight.shape if self.weight is not None else ()
        return (len(self.rows), *stored[1:]) if self.rows else stored


@dataclass(frozen=True, slots=True)
class Attached:
    """A head with its tensors.

    steps: as in :class:`Step`, with activations by name. native: llama.cpp's tensor -> ours. twins: tensors that hold
    what is already there, and must be equal to it (None: the token embedding).
    """

    task: str
    pooling: Pooling
    steps: tuple[Step, ...]
    layers: Mapping[str, Layer]
    native: Mapping[str, Tensor] = field(default_factory=dict)
    twins: Mapping[str, Tensor | None] = field(default_factory=dict)
    epsilon: float = 0.0

    @property
    def names(self) -> set[str]:
        """The tensors of the checkpoint that belong to it."""
        return {tensor.name for layer in self.layers.values() for tensor in layer.tensors}

    @property
    def native_shapes(self) -> dict[str, tuple[int, ...]]:
        """By the name of llama.cpp's tensor without ``.weight``; checked when they were found."""
        weights = {name.removesuffix(".weight"): tensor for name, tensor in self.native.items()}
        return {name: tensor.shape for name, tensor in weights.items() if not name.endswith(".bias")}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, which are stored as f32."""
        return sum(4 * size for layer in self.layers.values() for size in _sizes(layer))

    def kept_whole(self) -> Attached:
        """Itself. Raises :class:`UnsupportedModel` when it is too large for metadata."""
        largest = max((size for layer in self.layers.values() for size in _sizes(layer)), default=0)
        if self.nbytes > MOST_BYTES or largest > MAX_ARRAY_LENGTH:
            raise UnsupportedModel(
                f"the head of {self.nbytes / 1e6:.1f} MB, its largest tensor of {largest:,} values, is too large for "
                f"metadata, which ends at {MOST_BYTES / 1e6:.1f} MB and {MAX_ARRAY_LENGTH:,} values",
                hint="convert the model without its head: name its base class in config.json",
            )
        return self


def attach(head: Head, tensors: Mapping[str, Tensor], config: Config) -> Attached:
    """Find the tensors of ``head``.

    Raises:
        BadCheckpoint: one is missing, or has a shape that does not follow from the layer before it.
        UnsupportedModel: an activation that we do not compute, or more than 32 MB.
    """
    steps = tuple(_resolved(step, config) for step in head.steps)
    layers: dict[str, Layer] = {}
    twins: dict[str, Tensor | None] = {}
    width = config.hidden_size
    for step in steps:
        if step.layer:
            layers[step.layer] = _layer(step, tensors, config, twins)
            width = _checked_width(step, layers[step.layer], width, config)
    epsilon = number(config.values, "layer_norm_eps") if any(step.kind == "norm" for step in steps) else 0.0
    attached = Attached(head.task, head.input(config), steps, layers, {}, twins, epsilon)
    return _with_native(attached.kept_whole(), head.native(config))


def metadata(attached: Attached, config: Config) -> dict[str, Value]:
    """What the file says of the head, but its weights."""
    described: dict[str, Value] = {
        f"{KEY}.task": attached.task,
        f"{KEY}.pooling": attached.pooling,
        f"{KEY}.steps": [f"{step.kind} {step.layer}".strip() for step in attached.steps],
    }
    if attached.epsilon:
        described[f"{KEY}.epsilon"] = attached.epsilon
    if attached.task not in UNLABELLED:
        described[f"{KEY}.labels"] = labels(config, _outputs(attached))
    if config.get("problem_type"):
        described[f"{KEY}.problem_type"] = str(config.get("problem_type"))
    for name, layer in attached.layers.items():
        if layer.weight is None:
            described[f"{KEY}.{name}.tied"] = True
        else:
            described[f"{KEY}.{name}.shape"] = np.array(layer.shape, np.uint32)
    return described


def native_metadata(attached: Attached, config: Config) -> dict[str, Value]:
    """llama.cpp's own keys, without the prefix of the architecture: its pooling, and a classifier that it computes."""
    if attached.task == FEATURES:
        kind = POOLING_TYPES.get(attached.pooling)
        return {} if kind is None else {"pooling_type": kind}
    if not attached.native:
        return {}
    found: dict[str, Value] = {"pooling_type": RANK, "classifier.output_labels": labels(config, _outputs(attached))}
    if attached.pooling == "mean":
        found["classifier.pooling_type"] = POOLING_TYPES["mean"]
    elif "norm" in attached.layers:  # llama.cpp takes the mean where ModernBERT's file says nothing
        found["classifier.pooling_type"] = POOLING_TYPES["first"]
    return found


def summary(attached: Attached, config: Config) -> str:
    """One line about the head, for people."""
    parts = [attached.pooling if attached.pooling != "each" else "each token", *(step.kind for step in attached.steps)]
    labelled = attached.task not in UNLABELLED
    count = f", {len(labels(config, _outputs(attached)))} label(s)" if labelled else ""
    where = "in metadata and llama.cpp's own tensors" if attached.native else "in metadata"
    return f"{attached.task}{count}: {' → '.join(parts)}; {where}"


def weights(attached: Attached) -> dict[str, Value]:
    """The weights, as f32. Reads the tensors."""
    values: dict[str, Value] = {}
    for name, layer in attached.layers.items():
        if layer.weight is not None:
            values[f"{KEY}.{name}.weight"] = _read(layer.weight, layer.rows)
        if layer.bias is not None:
            values[f"{KEY}.{name}.bias"] = _read(layer.bias)
    return values


def labels(config: Config, count: int) -> list[str]:
    """The names of the outputs in the order of their numbers (JSON has those as text, in any order).

    Raises:
        BadCheckpoint: they are not numbered, or not as many as the head has outputs.
    """
    given = config.get("id2label")
    if not given:
        return [f"LABEL_{index}" for index in range(count)]
    try:
        numbered = {int(index): str(label) for index, label in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"config.json: id2label must map numbers to names, not {given!r}") from error
    if sorted(numbered) != list(range(count)):
        raise BadCheckpoint(
            f"config.json names {len(numbered)} labels, and the head has {count} outputs",
            hint="config.json and the tensors come from different models",
        )
    return [numbered[index] for index in range(count)]


def _resolved(step: Step, config: Config) -> Step:
    if step.layer or step.kind == "normalize":
        return step
    kind = str(config.get(step.kind[1:])) if step.kind.startswith("@") else step.kind
    if kind not in ACTIVATIONS:
        raise UnsupportedModel(f"the head's activation {kind!r} is unknown", hint=f"known: {', '.join(ACTIVATIONS)}")
    return Step(kind)


def _layer(step: Step, tensors: Mapping[str, Tensor], config: Config, twins: dict[str, Tensor | None]) -> Layer:
    weight_name, beside = f"{step.source}.weight", f"{step.source}.bias"
    tied = step.tied and config.tied
    bias = _found(step.bias or beside, tensors) if step.has_bias(config) else None
    if tied and weight_name in tensors:
        twins[weight_name] = None
    if bias is not None and step.bias and beside in tensors:
        twins[beside] = bias
    return Layer(None if tied else _found(weight_name, tensors), bias)


def _found(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    if name not in tensors:
        raise BadCheckpoint(
            f"the head's tensor {name} is missing",
            hint="the checkpoint is incomplete, or its class in config.json is not what was saved",
        )
    if tensors[name].dtype not in FLOATS:
        raise UnsupportedModel(f"the head's tensor {name} is stored as {tensors[name].dtype}; it must be a plain float")
    return tensors[name]


def _checked_width(step: Step, layer: Layer, width: int, config: Config) -> int:
    """The width after a layer."""
    weight, bias = layer.weight, layer.bias
    if weight is None:
        shape: tuple[int, ...] = (config.vocab_size, config.hidden_size)
    else:
        shape = weight.shape
    wanted = (width,) if step.kind == "norm" else (*shape[:1], width)
    if shape != wanted or (bias is not None and bias.shape != shape[:1]):
        raise BadCheckpoint(
            f"the head's {step.source} has shape {shape}, where {wanted} is what follows from the layer before it",
            hint="config.json and the tensors come from different models, or one of them is damaged",
        )
    return shape[0]


def _with_native(attached: Attached, wanted: bool) -> Attached:
    if not wanted:
        return attached
    native = dict(_native(attached))
    return Attached(
        attached.task, attached.pooling, attached.steps, attached.layers, native, attached.twins, attached.epsilon
    )


def _native(attached: Attached) -> Iterator[tuple[str, Tensor]]:
    for step in attached.steps:
        if step.native:
            layer = attached.layers[step.layer]
            named = (("weight", layer.weight), ("bias", layer.bias))
            yield from ((f"{step.native}.{kind}", tensor) for kind, tensor in named if tensor is not None)


def _outputs(attached: Attached) -> int:
    last = [layer.weight for layer in attached.layers.values()][-1]
    return last.shape[0] if last is not None else 0


def _sizes(layer: Layer) -> list[int]:
    """Values of the weight and of the bias, as they are stored."""
    shapes = (layer.shape, layer.bias.shape if layer.bias is not None else ())
    return [int(np.prod(shape)) for shape in shapes if shape]


def _read(tensor: Tensor, rows: Sequence[int] = ()) -> NDArray[Any]:
    """All of a tensor, or some of its rows."""
    source = rows_of(tensor)
    spans = [(row, row + 1) for row in rows] or [(0, tensor.shape[0])]
    parts = [to_f32(source.read(start, stop), tensor.dtype).astype(np.float32).ravel() for start, stop in spans]
    return np.concatenate(parts)
