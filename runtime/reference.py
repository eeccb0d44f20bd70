"""A decoder in numpy, straight from a checkpoint: what the logits of a converted file are held to.

It shares nothing with the conversion but the reader of the files: names, config keys and the order of rows are those of
transformers (``modeling_llama.py``, ``modeling_qwen3.py``, ``modeling_gemma.py``), whose logits the tests hold it to.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..convert.checkpoint import read_config, read_tensors
from ..convert.encode import to_f32
from ..convert.errors import UnsupportedModel
from ..convert.tensor import Tensor
from ..convert.transforms import rows_of

Array = NDArray[np.float32]
# Rows of the head that are read at a time.
HEAD_ROWS = 8192
COMPUTED_ROPES = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a class differs from Llama. normed_heads: norms on each query and key head. one_more: norms multiply with one
    more than they store, and the embedding is scaled by the root of its width."""

    normed_heads: bool = False
    one_more: bool = False


CLASSES: Mapping[str, Kind] = {
    "LlamaForCausalLM": Kind(),
    "MistralForCausalLM": Kind(),
    "Qwen2ForCausalLM": Kind(),
    "Qwen3ForCausalLM": Kind(normed_heads=True),
    "GemmaForCausalLM": Kind(one_more=True),
}


class Reference:
    """The model of a checkpoint folder.

    Raises:
        UnsupportedModel: it is of no class, or has settings, that are computed here; the message says which.
        BadCheckpoint: its files are broken.
    """

    def __init__(self, folder: Path) -> None:
        self._config = read_config(folder)
        name = str((self._config.get("architectures") or [""])[0])
        if name not in CLASSES:
            raise UnsupportedModel(f"there is no reference for {name or 'a checkpoint without a class'}")
        self._kind = CLASSES[name]
        self._tensors = read_tensors(folder)
        self._read_settings()

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self._tensors.values())

    def logits(self, prompts: Sequence[Sequence[int]]) -> list[Array]:
        """The logits behind the last token of each prompt, each shaped (vocabulary,).

        A layer's weights are read once and let go again, so that memory is that of one layer.
        """
        states = [self._embed(prompt) for prompt in prompts]
        for layer in range(self.num_layers):
            states = self._layer(f"model.layers.{layer}.", states)
        last = np.stack([self._norm("model.norm.weight", state[-1:])[0] for state in states])
        return list(np.concatenate([last @ rows.T for rows in self._head()], axis=1))

    def _read_settings(self) -> None:
        config = self._config
        self.num_layers = self._whole("num_hidden_layers")
        self.vocab_size = self._whole("vocab_size")
        self._heads = self._whole("num_attention_heads")
        self._kv_heads = int(config.get("num_key_value_heads") or self._heads)
        self._size = int(config.get("head_dim") or self._whole("hidden_size") // self._heads)
        self._epsilon = float(config.get("rms_norm_eps") or 1e-6)
        activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
        self._gelu = self._kind.one_more
        if activation not in (("gelu", "gelu_pytorch_tanh", "gelu_new") if self._gelu else ("silu",)):
            raise UnsupportedModel(f"the reference does not compute hidden_act {activation!r}")
        self._frequencies = self._rotary(self._rope())
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        self.longest = int(window or config.get("max_position_embeddings") or 2048)

    def _whole(self, key: str) -> int:
        value = self._config.get(key)
        if type(value) is not int or value < 1:
            raise UnsupportedModel(f"the reference needs {key} in config.json")
        return value

    def _rope(self) -> dict[str, Any]:
        old = {"rope_theta": self._config.get("rope_theta", 10_000.0), **(self._config.get("rope_scaling") or {})}
        rope = dict(self._config.get("rope_parameters") or old)
        rope["type"] = rope.get("rope_type", rope.get("type", "default"))
        if rope["type"] not in COMPUTED_ROPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedModel(f"the reference does not compute the rotary embedding {json.dumps(rope)}")
        return rope

    def _rotary(self, rope: Mapping[str, Any]) -> Array:
        """Radians per position of each pair of elements, (head size / 2,)."""
        plain = float(rope["rope_theta"]) ** -(np.arange(0, self._size, 2) / self._size)
        if rope["type"] == "linear":
            return np.asarray(plain / float(rope["factor"]), np.float32)
        if rope["type"] == "llama3":
            low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
            turns = float(rope["original_max_position_embeddings"]) * plain / (2 * np.pi)
            kept = np.clip((turns - low) / (high - low), 0, 1)
            return np.asarray(kept * plain + (1 - kept) * plain / float(rope["factor"]), np.float32)
        return np.asarray(plain, np.float32)

    def _embed(self, prompt: Sequence[int]) -> Array:
        table = rows_of(self._tensor("model.embed_tokens.weight"))
        rows = np.concatenate([to_f32(table.read(token, token + 1), table.dtype) for token in prompt])
        return np.asarray(rows * np.float32(rows.shape[1] ** 0.5), np.float32) if self._kind.one_more else rows

    def _layer(self, root: str, states: list[Array]) -> list[Array]:
        attention, mlp = self._weights(root + "self_attn."), self._weights(root + "mlp.")
        found = []
        for state in states:
            middle = state + self._attend(attention, self._norm(root + "input_layernorm.weight", state))
            normed = self._norm(root + "post_attention_layernorm.weight", middle)
            gate = _apply(mlp, "gate_proj", normed)
            gated = (_gelu(gate) if self._gelu else _silu(gate)) * _apply(mlp, "up_proj", normed)
            found.append(middle + _apply(mlp, "down_proj", gated))
        for name in self._names(root):
            self._tensors[name].release()
        return found

    def _attend(self, weights: Mapping[str, Array], x: Array) -> Array:
        query = self._split(_apply(weights, "q_proj", x), self._heads)
        key = self._split(_apply(weights, "k_proj", x), self._kv_heads)
        value = self._split(_apply(weights, "v_proj", x), self._kv_heads)
        if self._kind.normed_heads:
            query = self._scaled(query, weights["q_norm.weight"])
            key = self._scaled(key, weights["k_norm.weight"])
        query, key = self._turned(query), self._turned(key)
        shared = self._heads // self._kv_heads
        key, value = np.repeat(key, shared, axis=0), np.repeat(value, shared, axis=0)
        scores = query @ key.swapaxes(1, 2) / np.float32(self._size**0.5)
        later = np.triu(np.ones(scores.shape[1:], bool), 1)
        mixed = _softmax(np.where(later, np.float32(-np.inf), scores)) @ value
        return _apply(weights, "o_proj", mixed.swapaxes(0, 1).reshape(len(x), -1))

    def _split(self, x: Array, heads: int) -> Array:
        """(tokens, heads × size) as (heads, tokens, size)."""
        return x.reshape(len(x), heads, self._size).swapaxes(0, 1)

    def _turned(self, x: Array) -> Array:
        """Each head's halves rotated against each other by the angle of the position."""
        angles = np.arange(x.shape[1], dtype=np.float32)[:, None] * self._frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        one, two = np.split(x, 2, axis=-1)
        return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)

    def _norm(self, name: str, x: Array) -> Array:
        return self._scaled(x, self._read(name))

    def _scaled(self, x: Array, weight: Array) -> Array:
        root = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return np.asarray(x / root * (weight + 1 if self._kind.one_more else weight), np.float32)

    def _head(self) -> Iterator[Array]:
        name = "lm_head.weight" if "lm_head.weight" in self._tensors else "model.embed_tokens.weight"
        rows = rows_of(self._tensor(name))
        for start in range(0, rows.height, HEAD_ROWS):
            yield to_f32(rows.read(start, min(start + HEAD_ROWS, rows.height)), rows.dtype)
            rows.release()

    def _weights(self, root: str) -> dict[str, Array]:
        return {name.removeprefix(root): self._read(name) for name in self._names(root)}

    def _names(self, root: str) -> list[str]:
        return [name for name in self._tensors if name.startswith(root)]

    def _read(self, name: str) -> Array:
        tensor = self._tensor(name)
        rows = rows_of(tensor)
        return to_f32(rows.read(0, rows.height), rows.dtype).reshape(tensor.shape).astype(np.float32, copy=False)

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise UnsupportedModel(f"the reference finds no tensor {name}")
        return self._tensors[name]


def _apply(weights: Mapping[str, Array], name: str, x: Array) -> Array:
    y = x @ weights[f"{name}.weight"].T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias


def _softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)), np.float32)


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), np.float32)
