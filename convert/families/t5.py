"""T5 and flan-T5: an encoder and a decoder, with a bias by relative position in their attention.

The first T5 scales its states by ``d_model ** -0.5`` before the head, which llama.cpp does not do: the scale goes into
the head, which is then written even where it is tied to the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import names
from ..config import MAX_CONTEXT, Config, number
from ..gguf import Value
from ..names import Names
from ..report import Item
from ..transforms import Rows, scaled
from .family import Family, Transform, unsupported

MAX_DISTANCE = 128  # fixed in llama.cpp
EMBEDDINGS = r"(encoder\.|decoder\.)embed_tokens\.weight"
GATED = "gated-gelu"


def stack(side: str, config: Config) -> dict[str, str]:
    """The names of one side, ``encoder`` or ``decoder``, without the relative positions."""
    short = side[:3]
    source, target = f"{side}.block.{{}}.layer.", f"{short}.blk.{{}}."
    inner = 2 if side == "decoder" else 1
    table = {f"{source}0.SelfAttention.{part}": f"{target}attn_{part}" for part in "qkvo"}
    if side == "decoder":
        table |= {f"{source}1.EncDecAttention.{part}": f"{target}cross_attn_{part}" for part in "qkvo"}
        table[f"{source}1.layer_norm"] = f"{target}cross_attn_norm"
    return {
        f"{side}.final_layer_norm": f"{short}.output_norm",
        f"{source}0.layer_norm": f"{target}attn_norm",
        **table,
        f"{source}{inner}.layer_norm": f"{target}ffn_norm",
        **feed_forward(f"{source}{inner}.DenseReluDense.", target, config),
    }


def feed_forward(source: str, target: str, config: Config) -> dict[str, str]:
    ins = {"wi_0": "ffn_gate", "wi_1": "ffn_up"} if config.activation == GATED else {"wi": "ffn_up"}
    return {source + part: target + name for part, name in {**ins, "wo": "ffn_down"}.items()}


def positions(side: str, layers: int) -> dict[str, str]:
    """The biases by relative position, of the layers that have their own."""
    return {
        f"{side}.block.{layer}.layer.0.SelfAttention.relative_attention_bias": f"{side[:3]}.blk.{layer}.attn_rel_b"
        for layer in range(layers)
    }


def decoder_layers(config: Config) -> int:
    return config.count("num_decoder_layers", 512, config.num_layers)


def tensors(config: Config) -> Names:
    return both_sides(config, 1, 1)


def both_sides(config: Config, encoder: int, decoder: int) -> Names:
    """``encoder`` and ``decoder``: how many layers of each have relative positions of their own."""
    return names.weights(
        {"shared": "token_embd"},
        stack("encoder", config),
        positions("encoder", encoder),
        names.in_layers(stack("decoder", config), range(decoder_layers(config))),
        positions("decoder", decoder),
    )


def encoder_metadata(config: Config) -> dict[str, Value]:
    epsilon = number(config.values, "layer_norm_eps")
    return {
        "block_count": config.num_layers,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "attention.relative_buckets_count": buckets(config),
    }


def metadata(config: Config) -> dict[str, Value]:
    return {
        **encoder_metadata(config),
        "decoder_block_count": decoder_layers(config),
        "decoder_start_token_id": int(config.get("decoder_start_token_id", 0)),
    }


def buckets(config: Config) -> int:
    return config.count("relative_attention_num_buckets", 1 << 10)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    own: dict[str, tuple[int, ...]] = {}
    for side in ("enc.", "dec."):
        for attention in ("attn", "cross_attn"):
            own |= {f"{side}{attention}_{part}": (heads, hidden) for part in "qkv"}
            own[f"{side}{attention}_o"] = (hidden, heads)
            own[f"{side}{attention}_norm"] = (hidden,)
        own |= dict.fromkeys((f"{side}ffn_norm", f"{side}output_norm"), (hidden,))
        own |= dict.fromkeys((f"{side}ffn_gate", f"{side}ffn_up"), (inner, hidden))
        own[f"{side}ffn_down"] = (hidden, inner)
        own[f"{side}attn_rel_b"] = (buckets(config), config.num_heads)
    return own


def transforms(config: Config) -> dict[str, Transform]:
    """The scale of the states before the head, where the model has one.

    transformers 5 writes ``scale_decoder_outputs``; before, a tied head meant a scaled one.
    """
    if not config.get("scale_decoder_outputs", config.tied):
        return {}

    def scale(rows: Rows) -> Rows:
        return scaled(rows, config.hidden_size**-0.5)

    return {r"output\.weight": scale}


def limits(config: Config) -> Iterator[Item]:
    distance = config.count("relative_attention_max_distance", MAX_CONTEXT)
    if distance != MAX_DISTANCE:
        yield unsupported("relative_attention_max_distance", distance)
    if decoder_layers(config) > config.num_layers:
        yield Item("config", "fail", f"llama.cpp loads no decoder of {decoder_layers(config)} layers behind an encoder "
                   f"of {config.num_layers}: it must not be the deeper one")  # fmt: skip


FAMILY = Family(
    arch="t5",
    classes=("T5ForConditionalGeneration", "T5WithLMHeadModel"),
    model_types=("t5",),
    activations=("relu", GATED),
    defaults={
        "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": MAX_DISTANCE,
        "layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu", "n_positions": 512, "decoder_start_token_id": 0,
        "tie_word_embeddings": True,
    },
    tensors=tensors,
    optional=lambda config: {"lm_head.weight": "output.weight"},
    spellings={EMBEDDINGS: "shared.weight"},
    metadata=metadata,
    transforms=transforms,
    shapes=shapes,
    dropped={rf"{EMBEDDINGS}|shared\.weight": "tied to the embedding"},
    limits=limits,
    rope_types=frozenset(),
    root="",
    head="",
    embedding="shared.weight",
    tied_head=False,
)  # fmt: skip
