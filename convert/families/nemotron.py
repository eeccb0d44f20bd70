"""Nemotron 3 and 4 (Minitron): layer norms stored as weight - 1, a plain MLP with squared ReLU."""

from __future__ import annotations

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..transforms import add_one
from .family import Family, Transform, layer_norm_metadata

NORMS: names.Names = {**names.FINAL_NORM, **names.PRE_NORMS}


def tensors(config: Config) -> names.Names:
    biased: tuple[names.Names, ...] = (NORMS,)
    biased += (names.ATTENTION,) if config.flag("attention_bias") else ()
    biased += (names.PLAIN_MLP,) if config.flag("mlp_bias") else ()
    plain = names.weights(names.EMBEDDING, NORMS, names.ATTENTION, names.PLAIN_MLP)
    return {**plain, **names.biases(*biased)}


def metadata(config: Config) -> dict[str, Value]:
    return {
        **layer_norm_metadata(config),
        **rope.metadata(config.rope),
        "vocab_size": config.vocab_size,
        "rope.dimension_count": config.rotary_size,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*_norm\.weight": add_one}


FAMILY = Family(
    arch="nemotron",
    classes=("NemotronForCausalLM",),
    model_types=("nemotron",),
    activations=("relu2",),
    defaults={
        "hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5, "tie_word_embeddings": False,
    },
    tensors=tensors,
    metadata=metadata,
    transforms=transforms,
    partial_rotary=True,
    square=True,
    tied_head=False,
)  # fmt: skip
