"""The head of a model, as the converter stored it (``ingle.head.*``): run in numpy on the states of the tokens.

The layers are small beside the model's, and llama.cpp has most of them not at all, or with another activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadGGUF
from ...convert.gguf import Value

Array = NDArray[np.float32]
KEY = "ingle.head"
POOLINGS: Mapping[str, Callable[[Array], Array]] = {
    "first": lambda states: states[0],
    "last": lambda states: states[-1],
    "mean": lambda states: states.mean(axis=0, dtype=np.float32),
    "max": lambda states: states.max(axis=0),
    "each": lambda states: states,
}


def _gelu_tanh(x: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)), np.float32)


def _gelu(x: Array) -> Array:
    erf = np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)).astype(np.float32)
    return np.asarray(0.5 * x * (1 + erf), np.float32)


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)), np.float32)


def normalized(x: Array) -> Array:
    """To length 1, as torch's ``normalize`` does it."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.maximum(length, 1e-12), np.float32)


FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": _silu,
    "tanh": lambda x: np.tanh(x),
    "margin": lambda x: x[..., :1] - x[..., 1:],
    "normalize": normalized,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """weight: (out, in) of a linear layer, (width,) of a norm."""

    weight: Array
    bias: Array | None

    def linear(self, x: Array) -> Array:
        return x @ self.weight.T if self.bias is None else x @ self.weight.T + self.bias

    def norm(self, x: Array, epsilon: float) -> Array:
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(variance + epsilon) * self.weight
        return np.asarray(scaled if self.bias is None else scaled + self.bias, np.float32)


@dataclass(frozen=True, slots=True)
class Head:
    """task, labels, problem_type: as the checkpoint has them. steps: a function's name, or a layer's kind and name."""

    task: str
    pooling: str
    steps: tuple[str, ...]
    layers: Mapping[str, Layer] = field(repr=False)
    labels: tuple[str, ...]
    problem_type: str
    epsilon: float

    @classmethod
    def of(cls, metadata: Mapping[str, Value], embedding: Callable[[], Array]) -> Head | None:
        """The head of a file; None when it has none. ``embedding`` reads the token embedding, for a tied decoder.

        Raises:
            BadGGUF: its keys do not fit each other.
        """
        if f"{KEY}.task" not in metadata:
            return None
        try:
            return cls._read(metadata, embedding)
        except (KeyError, ValueError, TypeError) as error:
            raise BadGGUF(f"the file's head ({KEY}.*) is malformed: {error!r}") from error

    @classmethod
    def _read(cls, metadata: Mapping[str, Value], embedding: Callable[[], Array]) -> Head:
        steps = _texts(metadata.get(f"{KEY}.steps"))
        names = [step.split(" ")[1] for step in steps if " " in step]
        unknown = [step for step in steps if " " not in step and step not in FUNCTIONS]
        pooling = str(metadata[f"{KEY}.pooling"])
        if unknown or pooling not in POOLINGS:
            raise ValueError(f"unknown steps {unknown} or pooling {pooling!r}")
        return cls(
            task=str(metadata[f"{KEY}.task"]),
            pooling=pooling,
            steps=steps,
            layers={name: _layer(name, metadata, embedding) for name in names},
            labels=_texts(metadata.get(f"{KEY}.labels")),
            problem_type=str(metadata.get(f"{KEY}.problem_type", "")),
            epsilon=float(_number(metadata.get(f"{KEY}.epsilon", 0.0))),
        )

    def run(self, states: Array) -> Array:
        """What the head makes of the states of a text, (tokens, width): (outputs,), or (tokens, outputs) for each."""
        x = POOLINGS[self.pooling](states)
        for step in self.steps:
            kind, _, name = step.partition(" ")
            if kind == "linear":
                x = self.layers[name].linear(x)
            elif kind == "norm":
                x = self.layers[name].norm(x, self.epsilon)
            else:
                x = FUNCTIONS[kind](x)
        return x


def _layer(name: str, metadata: Mapping[str, Value], embedding: Callable[[], Array]) -> Layer:
    prefix = f"{KEY}.{name}"
    bias = metadata.get(f"{prefix}.bias")
    return Layer(_weight(prefix, metadata, embedding), None if bias is None else _array(bias))


def _weight(prefix: str, metadata: Mapping[str, Value], embedding: Callable[[], Array]) -> Array:
    if metadata.get(f"{prefix}.tied"):
        return embedding()
    shape = metadata[f"{prefix}.shape"]
    return _array(metadata[f"{prefix}.weight"]).reshape(np.asarray(shape))


def _array(value: Value) -> Array:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{value!r} is no array")
    return value.astype(np.float32)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _number(value: Any) -> float:
    return float(value)
