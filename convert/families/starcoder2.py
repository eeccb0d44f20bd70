"""StarCoder 2: layer norms and biases everywhere, rotary embedding, a plain MLP."""

from __future__ import annotations

from collections.abc import Iterator

from .. import names, rope
from ..config import Config
from ..gguf import Value
from ..report import Item
from .family import GELU, Family, layer_norm_metadata, refuse_values, window_warning

MLP: names.Names = {
    names.LAYER + "mlp.c_fc": "blk.{}.ffn_up",
    names.LAYER + "mlp.c_proj": "blk.{}.ffn_down",
}
BIASED: names.Names = {**names.FINAL_NORM, **names.PRE_NORMS, **names.ATTENTION, **MLP}


def tensors(config: Config) -> names.Names:
    return {**names.weights(names.EMBEDDING, BIASED), **names.biases(BIASED)}


def metadata(config: Config) -> dict[str, Value]:
    return {**layer_norm_metadata(config), **rope.metadata(config.rope)}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_values(config, use_bias=True)
    yield from window_warning(config, config.get("sliding_window"))


FAMILY = Family(
    arch="starcoder2",
    classes=("Starcoder2ForCausalLM",),
    model_types=("starcoder2",),
    activations=GELU,
    defaults={"hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "tie_word_embeddings": True},
    tensors=tensors,
    metadata=metadata,
    limits=limits,
    square=True,
)
