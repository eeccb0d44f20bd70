"""What a model family says about itself, so that one pipeline converts them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import rope
from ..config import Config, Derived, number
from ..gguf import Value
from ..names import Names
from ..report import Item
from ..transforms import Rows, rope_rows

Transform = Callable[[Rows], Rows]

# llama.cpp's GELU is the tanh form, which is within 1e-3 of the exact one.
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
# llama.cpp's numbers for how a router turns scores into weights.
SOFTMAX, SIGMOID = 1, 2
SILU = ("silu", "swish")
ROPE_TYPES = frozenset({"default", "linear", "yarn"})
CAUSAL_DROPPED: Mapping[str, str] = {
    r".*\.rotary_emb\.inv_freq": "computed from rope_theta",
    r".*\.attention\.(bias|masked_bias)": "a causal mask, not a weight",
}
VISION_DROPPED: Mapping[str, str] = {
    **CAUSAL_DROPPED,
    r"(model\.)?(vision_tower|vision_model|multi_modal_projector|connector|visual)\..*": "the vision part, which "
    "never is in this file",
}


def _nothing(config: Config) -> dict[str, Any]:
    return {}


def _as_given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _no_limits(config: Config) -> Iterator[Item]:
    yield from ()


def _no_token_types(config: Config) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Family:
    """One model family.

    arch: the architecture's name in GGUF, and the prefix of its keys.
    classes, model_types: what config.json calls it.
    activations: the hidden_act values that llama.cpp computes for it.
    defaults: what the config class assumes for keys that config.json leaves out.
    derived: keys in our spelling, worked out from those of config.json.
    tensors: source name -> target name of every tensor that must be there, but the head (see :mod:`..names`).
    optional: the same for tensors that some checkpoints have.
    spellings: regular expression on a source name -> what it stands for in the tables.
    metadata: keys besides :func:`shape_metadata`, without the arch prefix.
    transforms: regular expression on the target name -> what is done to the tensor.
    computed: tensors that are not in the checkpoint.
    shapes: shapes of targets that differ from :func:`..shapes.expected`.
    elements: regular expression on the target name -> the element type it has whatever is asked for.
    dropped: regular expression on the source name -> why it is left out.
    surplus_layers: why layers after the last one are left out; empty when there must be none.
    limits: verdicts on what llama.cpp computes differently, or not at all.
    root: prefix that older saves leave out.
    head: source name of the head, when it is not tied to ``embedding``; empty for models that predict no next token.
    square: head_dim must be hidden_size / num_attention_heads.
    tied_head: whether llama.cpp falls back to the embedding when there is no ``output.weight``.
    conv1d: regular expression on the source names of weights that are stored as (in, out); adapters are not.
    token_types: how many segment ids an encoder knows; llama.cpp loads no BERT that has none.
    """

    arch: str
    classes: tuple[str, ...]
    model_types: tuple[str, ...]
    activations: tuple[str, ...]
    defaults: Mapping[str, Any]
    tensors: Callable[[Config], Names]
    derived: Derived = _as_given
    metadata: Callable[[Config], dict[str, Value]] = _nothing
    transforms: Callable[[Config], Mapping[str, Transform]] = _nothing
    computed: Callable[[Config], Mapping[str, NDArray[np.float32]]] = _nothing
    shapes: Callable[[Config], Mapping[str, tuple[int, ...]]] = _nothing
    elements: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=lambda: CAUSAL_DROPPED)
    surplus_layers: str = ""
    limits: Callable[[Config], Iterator[Item]] = _no_limits
    rope_types: frozenset[str] = ROPE_TYPES
    partial_rotary: bool = False
    optional: Callable[[Config], Names] = _nothing
    spellings: Mapping[str, str] = field(default_factory=dict)
    root: str = "model."
    head: str = "lm_head.weight"
    embedding: str = "model.embed_tokens.weight"
    square: bool = False
    tied_head: bool = True
    conv1d: str = ""
    token_types: Callable[[Config], int] = _no_token_types


def shape_metadata(config: Config) -> dict[str, Value]:
    """The keys that every decoder with RMS norms and rotary embedding has."""
    keys: dict[str, Value] = {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.layer_norm_rms_epsilon": number(config.values, "rms_norm_eps"),
        **rope.metadata(config.rope),
    }
    if config.get("head_dim") is not None:
        keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    return keys


def layer_norm_metadata(config: Config) -> dict[str, Value]:
    """The keys of a decoder with layer norms; the embedding of positions, if any, is its own."""
    return {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.layer_norm_epsilon": number(config.values, "layer_norm_eps"),
    }


def expert_metadata(config: Config) -> dict[str, Value]:
    """The keys of a mixture of experts."""
    return {"expert_count": config.num_experts, "expert_used_count": config.num_experts_used}


def rotated_rows(config: Config) -> dict[str, Transform]:
    """Query and key rows in the order of llama.cpp's "norm" rotary embedding."""
    return {
        r"blk\.\d+\.attn_q\.(weight|bias)": lambda rows: rope_rows(rows, config.num_heads),
        r"blk\.\d+\.attn_k\.(weight|bias)": lambda rows: rope_rows(rows, config.num_kv_heads),
    }


def unsupported(name: str, value: object) -> Item:
    """A config value that llama.cpp's graph of the family cannot compute."""
    return Item("config", "fail", f"{name} is {value!r}, which llama.cpp cannot compute for this architecture")


def refuse_values(config: Config, **computed: object) -> Iterator[Item]:
    """A verdict for each of these config keys that has another value than the one llama.cpp computes with."""
    for name, value in computed.items():
        if config.get(name, value) != value:
            yield unsupported(name, config.get(name))


def refuse_flags(config: Config, *names: str) -> Iterator[Item]:
    """A verdict for each of these config flags that is set."""
    yield from (unsupported(name, True) for name in names if config.flag(name))


def window_warning(config: Config, window: object) -> Iterator[Item]:
    """llama.cpp attends to everything where the model was trained with a window."""
    if isinstance(window, int) and window < config.context_length:
        yield Item(
            "attention",
            "warn",
            f"trained with a sliding window of {window:,} tokens, which llama.cpp does not apply to this architecture: "
            f"answers equal the checkpoint's for up to {window:,} tokens and may differ beyond",
            hint=f"load it with a context length of {window:,} to stay within what was trained",
        )


def window_pattern(config: Config, period: int) -> dict[str, Value]:
    """Which layers use the window, when it is not the one full layer in ``period`` that llama.cpp assumes."""
    assumed = [(layer + 1) % period != 0 for layer in range(config.num_layers)]
    actual = windowed_layers(config, assumed)
    return {} if actual == assumed else {"attention.sliding_window_pattern": np.array(actual)}


def windowed_layers(config: Config, assumed: list[bool]) -> list[bool]:
    """For each layer, whether it uses the sliding window."""
    types = config.get("layer_types")
    if isinstance(types, list) and len(types) == config.num_layers:
        return [kind == "sliding_attention" for kind in types]
    period = config.get("sliding_window_pattern")
    if isinstance(period, int) and period > 0:
        return [(layer + 1) % period != 0 for layer in range(config.num_layers)]
    return assumed
