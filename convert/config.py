"""One normalised model config, whatever version of transformers wrote config.json.

Old files say ``rope_theta`` and ``rope_scaling``, new ones ``rope_parameters``, some of them one dict per kind of
attention; models with vision keep their language model in ``text_config``; a key that equals the default of the
config class may be absent, which is why each family brings a table of those defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BadCheckpoint

GLOBAL, LOCAL = "full_attention", "sliding_attention"
MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_CONTEXT = 1 << 24

# Spellings of the same thing, the most common first.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "head_dim": ("d_kv",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "d_ff", "hidden_dim"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "seq_length"),
    "hidden_act": ("hidden_activation", "activation_function", "activation", "feed_forward_proj"),
    "layer_norm_eps": ("layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    "rms_norm_eps": ("norm_eps", "layer_norm_epsilon"),
    "partial_rotary_factor": ("rotary_pct",),
    "rope_theta": ("global_rope_theta", "rotary_emb_base"),
    "rope_local_base_freq": ("local_rope_theta",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"),
    "moe_intermediate_size": ("expert_ffn_hidden_size",),
    "shared_expert_intermediate_size": ("shared_intermediate_size",),
}


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding of one kind of attention. ``scaling`` holds the other keys of its dict."""

    theta: float
    type: str
    partial_factor: float
    scaling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of a decoder. ``values`` has every key of the file, flattened, over the defaults of its class.

    num_experts is 0 for a model without experts; expert_size and shared_size are the inner sizes of one routed expert
    and of all shared ones together.
    """

    values: Mapping[str, Any]
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    num_experts: int
    num_experts_used: int
    expert_size: int
    shared_size: int
    context_length: int
    activation: str
    tied: bool
    rope: Rope
    rope_local: Rope | None

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, in any of its spellings; ``default`` when it is absent or null."""
        return _get(self.values, key, default)

    def count(self, key: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 to ``most``. Raises :class:`BadCheckpoint` when it is anything else."""
        return _count(self.values, key, most, default)

    def number(self, key: str) -> float:
        """A finite positive number. Raises :class:`BadCheckpoint` when it is anything else, or absent."""
        return number(self.values, key)

    def flag(self, key: str) -> bool:
        return bool(self.get(key, False))

    @property
    def rotary_size(self) -> int:
        """How many elements of a head are rotated."""
        return int(self.rope.partial_factor * self.head_dim)

    @property
    def layers(self) -> range:
        return range(self.num_layers)


def flatten(raw: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with ``text_config`` lifted to the top, where it wins but for the head: that is the whole model's."""
    text = raw.get("text_config")
    if not isinstance(text, dict):
        return dict(raw)
    tied = {key: raw[key] for key in ("tie_word_embeddings",) if raw.get(key) is not None}
    return {**raw, **text, **tied}


def contradicts(raw: Mapping[str, Any], key: str) -> bool:
    """Whether config.json says two things about ``key``: transformers 4 went by ``text_config``, 5 goes by the top."""
    text = raw.get("text_config")
    said = [part[key] for part in (raw, text) if isinstance(part, dict) and part.get(key) is not None]
    return len(said) == 2 and bool(said[0]) != bool(said[1])


Derived = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def normalise(raw: Mapping[str, Any], defaults: Mapping[str, Any], derived: Derived = lambda values: {}) -> Config:
    """Read a config, completed with the ``defaults`` of its class, then with what is ``derived`` from all of that.

    Raises:
        BadCheckpoint: a value is missing, of the wrong kind or out of range.
    """
    given = flatten(raw)
    values = {**{key: value for key, value in defaults.items() if _get(given, key) is None}, **given}
    values |= derived(values)
    hidden, heads = _count(values, "hidden_size", 1 << 17), _count(values, "num_attention_heads", 1 << 10)
    layers = _count(values, "num_hidden_layers", MAX_LAYERS)
    kv_heads = _count(values, "num_key_value_heads", 1 << 10, heads)
    if heads % kv_heads:
        raise BadCheckpoint(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads")
    head_dim = _count(values, "head_dim", 1 << 14, hidden // heads)
    ropes = {kind: _rope(values, kind) for kind in (GLOBAL, LOCAL)}
    inner = _count(values, "intermediate_size", 1 << 20, 4 * hidden)
    experts = _count(values, "num_experts", MAX_EXPERTS, 0, least=0)
    expert_size = _count(values, "moe_intermediate_size", 1 << 20, inner)
    return Config(
        values=values,
        vocab_size=_count(values, "vocab_size", 1 << 21),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=inner,
        num_experts=experts,
        num_experts_used=_count(values, "num_experts_per_tok", experts, 0, least=0) if experts else 0,
        expert_size=expert_size,
        shared_size=_count(values, "shared_expert_intermediate_size", 1 << 20, expert_size, least=0),
        context_length=_count(values, "max_position_embeddings", MAX_CONTEXT),
        activation=str(_get(values, "hidden_act", "")),
        tied=bool(_get(values, "tie_word_embeddings", True)),
        rope=ropes[GLOBAL] or Rope(10_000.0, "default", 1.0),
        rope_local=ropes[LOCAL],
    )


def number(values: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A finite positive number. Raises :class:`BadCheckpoint` when it is anything else, or absent without default."""
    value = _get(values, key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise BadCheckpoint(f"config.json: {key} must be a positive number, not {value!r}")
    return float(value)


def _get(values: Mapping[str, Any], key: str, default: Any = None) -> Any:
    for name in (key, *ALIASES.get(key, ())):
        if values.get(name) is not None:
            return values[name]
    return default


def _count(values: Mapping[str, Any], key: str, most: int, default: int | None = None, *, least: int = 1) -> int:
    value = _get(values, key, default)
    if value is None:
        raise BadCheckpoint(f"config.json has no {key}", hint="download config.json again, or complete it by hand")
    if type(value) is not int or not least <= value <= most:
        raise BadCheckpoint(f"config.json: {key} must be a whole number from {least} to {most:,}, not {value!r}")
    return value


def _rope(values: Mapping[str, Any], kind: str) -> Rope | None:
    """The rotary embedding of full or of sliding attention; None when the config knows only one kind."""
    parameters = _get(values, "rope_parameters", _get(values, "rope_scaling", {}))
    if not isinstance(parameters, dict):
        raise BadCheckpoint(f"config.json: rope parameters must be an object, not {parameters!r}")
    if GLOBAL in parameters or LOCAL in parameters:
        own = parameters.get(kind)
        return _one_rope(values, own if isinstance(own, dict) else {}) if own is not None else None
    if kind == GLOBAL:
        return _one_rope(values, parameters)
    local = _get(values, "rope_local_base_freq")
    return Rope(number(values, "rope_local_base_freq"), "default", 1.0) if local is not None else None


def _one_rope(values: Mapping[str, Any], parameters: Mapping[str, Any]) -> Rope:
    theta = number(parameters, "rope_theta", number(values, "rope_theta", 10_000.0))
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    partial = number(parameters, "partial_rotary_factor", number(values, "partial_rotary_factor", 1.0))
    rest = {
        key: value
        for key, value in parameters.items()
        if key not in ("rope_theta", "rope_type", "type", "partial_rotary_factor") and value is not None
    }
    return Rope(theta, str(kind).lower(), partial, rest)
