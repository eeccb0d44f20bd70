"""A decoder in numpy, straight from a checkpoint: what the logits of a converted file are held to.

It shares nothing with the conversion but the reader of the files: names, config keys and the order of rows are those of
transformers (``modeling_llama.py``, ``modeling_gemma3.py``, ...), whose logits the tests hold it to. Where config.json
leaves out what the classes have different defaults for, nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
LAYER_KINDS = ("full_attention", "sliding_attention")


# Which of a layer's norms is where: before attention, after it, before the MLP, after it.
BEFORE = ("input_layernorm", "", "post_attention_layernorm", "")
AFTER = ("", "post_attention_layernorm", "", "post_feedforward_layernorm")
AROUND = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
THETA = "rope_theta"
GEMMA_NEEDS = ("head_dim", "query_pre_attn_scalar", "final_logit_softcapping")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a class differs from Llama.

    norms: as :data:`BEFORE`. normed: whether query and key have norms, over each ``head`` or over all of them. gemma:
    norms multiply with one more than they store, the embedding is scaled by the root of its width, the MLP has GELU.
    full_every: all layers but each so-manieth see a window, and of them Gemma 3's have a rotary embedding of their own.
    unrotated_every: the so-manieth layers have no rotary embedding. needs: keys of config.json.
    """

    norms: tuple[str, str, str, str] = BEFORE
    normed: Literal["", "head", "whole"] = ""
    gemma: bool = False
    full_every: int = 0
    unrotated_every: int = 0
    needs: tuple[str, ...] = ()


CLASSES: Mapping[str, Kind] = {
    "LlamaForCausalLM": Kind(),
    "MistralForCausalLM": Kind(),
    "Qwen2ForCausalLM": Kind(),
    "Qwen3ForCausalLM": Kind(normed="head", needs=("head_dim",)),
    "SmolLM3ForCausalLM": Kind(unrotated_every=4, needs=(THETA,)),
    "Olmo2ForCausalLM": Kind(norms=AFTER, normed="whole"),
    "GemmaForCausalLM": Kind(gemma=True, needs=("head_dim",)),
    "Gemma2ForCausalLM": Kind(AROUND, "", gemma=True, full_every=2, needs=(*GEMMA_NEEDS, "attn_logit_softcapping")),
    "Gemma3ForCausalLM": Kind(AROUND, "head", gemma=True, full_every=6, needs=(*GEMMA_NEEDS, THETA)),
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
        if self._config.get("quantization_config"):
            raise UnsupportedModel("the reference reads no quantized checkpoints")
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
            states = self._layer(layer, states)
        last = np.stack([self._norm("model.norm", state[-1:])[0] for state in states])
        found = np.concatenate([last @ rows.T for rows in self._head()], axis=1)
        return list(_capped(found, self._config.get("final_logit_softcapping")))

    def _read_settings(self) -> None:
        config = self._config
        given = {*config, *((THETA,) if config.get("rope_parameters") else ())}
        if missing := [key for key in ("rms_norm_eps", *self._kind.needs) if key not in given]:
            raise UnsupportedModel(f"the reference needs {', '.join(missing)} in config.json")
        self.num_layers = self._whole("num_hidden_layers")
        self.vocab_size = self._whole("vocab_size")
        self._heads = self._whole("num_attention_heads")
        self._kv_heads = int(config.get("num_key_value_heads") or self._heads)
        self._size = int(config.get("head_dim") or self._whole("hidden_size") // self._heads)
        self._epsilon = float(config["rms_norm_eps"])
        activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
        if activation not in (("gelu", "gelu_pytorch_tanh", "gelu_new") if self._kind.gemma else ("silu",)):
            raise UnsupportedModel(f"the reference does not compute hidden_act {activation!r}")
        self._scale = float(config.get("query_pre_attn_scalar") or self._size) ** -0.5
        self._frequencies = self._rotary(self._rope(LAYER_KINDS[0]))
        self._local_frequencies = self._rotary(self._rope(LAYER_KINDS[1]))
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        self._window = int(window) if window and self._kind.full_every else 0
        self.longest = int((not self._window and window) or config.get("max_position_embeddings") or 2048)

    def _whole(self, key: str) -> int:
        value = self._config.get(key)
        if type(value) is not int or value < 1:
            raise UnsupportedModel(f"the reference needs {key} in config.json")
        return value

    def _rope(self, kind: str) -> dict[str, Any]:
        """The rotary embedding of full or of windowed layers; these have the same but in Gemma 3."""
        config = self._config
        old = {"rope_theta": config.get("rope_theta", 10_000.0), **(config.get("rope_scaling") or {})}
        rope = dict(config.get("rope_parameters") or old)
        if kind in rope:
            rope = dict(rope[kind])
        elif kind == LAYER_KINDS[1] and config.get("rope_local_base_freq"):
            rope = {"rope_theta": config["rope_local_base_freq"]}
        rope["type"] = rope.get("rope_type", rope.get("type", "default"))
        if rope["type"] not in COMPUTED_ROPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedModel(f"the reference does not compute the rotary embedding {rope['type']!r}")
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
        return np.asarray(rows * np.float32(rows.shape[1] ** 0.5), np.float32) if self._kind.gemma else rows

    def _layer(self, layer: int, states: list[Array]) -> list[Array]:
        root = f"model.layers.{layer}."
        attention, mlp = self._weights(root + "self_attn."), self._weights(root + "mlp.")
        norms = [root + name if name else "" for name in self._kind.norms]
        found = []
        for state in states:
            attended = self._attend(layer, attention, self._norm(norms[0], state))
            middle = state + self._norm(norms[1], attended)
            found.append(middle + self._norm(norms[3], self._feed(mlp, self._norm(norms[2], middle))))
        for name in self._names(root):
            self._tensors[name].release()
        return found

    def _feed(self, weights: Mapping[str, Array], x: Array) -> Array:
        gate = _apply(weights, "gate_proj", x)
        gated = _gelu(gate) if self._kind.gemma else _silu(gate)
        return _apply(weights, "down_proj", gated * _apply(weights, "up_proj", x))

    def _attend(self, layer: int, weights: Mapping[str, Array], x: Array) -> Array:
        query, key = _apply(weights, "q_proj", x), _apply(weights, "k_proj", x)
        if self._kind.normed == "whole":
            query, key = self._scaled(query, weights["q_norm.weight"]), self._scaled(key, weights["k_norm.weight"])
        query, key = self._split(query, self._heads), self._split(key, self._kv_heads)
        if self._kind.normed == "head":
            query, key = self._scaled(query, weights["q_norm.weight"]), self._scaled(key, weights["k_norm.weight"])
        value = self._split(_apply(weights, "v_proj", x), self._kv_heads)
        if self._is_rotated(layer):
            frequencies = self._local_frequencies if self._is_windowed(layer) else self._frequencies
            query, key = _turned(query, frequencies), _turned(key, frequencies)
        shared = self._heads // self._kv_heads
        key, value = np.repeat(key, shared, axis=0), np.repeat(value, shared, axis=0)
        scores = query @ key.swapaxes(1, 2) * np.float32(self._scale)
        scores = _capped(scores, self._config.get("attn_logit_softcapping"))
        mixed = _softmax(np.where(self._hidden(layer, len(x)), np.float32(-np.inf), scores)) @ value
        return _apply(weights, "o_proj", mixed.swapaxes(0, 1).reshape(len(x), -1))

    def _is_windowed(self, layer: int) -> bool:
        kinds = self._config.get("layer_types")
        if not self._window:
            return False
        return kinds[layer] == LAYER_KINDS[1] if kinds else (layer + 1) % self._kind.full_every != 0

    def _is_rotated(self, layer: int) -> bool:
        period = self._kind.unrotated_every
        marked = self._config.get("no_rope_layers")
        return not period or (bool(marked[layer]) if marked else (layer + 1) % period != 0)

    def _hidden(self, layer: int, length: int) -> NDArray[np.bool_]:
        """Which keys (columns) a query (row) does not see: later ones, and those outside of its window."""
        distance = np.subtract.outer(np.arange(length), np.arange(length))
        hidden = distance < 0
        return hidden | (distance >= self._window) if self._is_windowed(layer) else hidden

    def _split(self, x: Array, heads: int) -> Array:
        """(tokens, heads × size) as (heads, tokens, size)."""
        return x.reshape(len(x), heads, self._size).swapaxes(0, 1)

    def _norm(self, name: str, x: Array) -> Array:
        return self._scaled(x, self._read(f"{name}.weight")) if name else x

    def _scaled(self, x: Array, weight: Array) -> Array:
        root = np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return np.asarray(x / root * (weight + 1 if self._kind.gemma else weight), np.float32)

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


def _turned(x: Array, frequencies: Array) -> Array:
    """Each head's halves, (heads, tokens, size), rotated against each other by the angle of the position."""
    angles = np.arange(x.shape[1], dtype=np.float32)[:, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    one, two = np.split(x, 2, axis=-1)
    return np.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


def _capped(x: Array, cap: float | None) -> Array:
    return x if cap is None else np.asarray(np.tanh(x / np.float32(cap)) * np.float32(cap), np.float32)


def _softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def _silu(x: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)), np.float32)


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), np.float32)
