"""ERNIE 4.5 with experts, chosen by their score and a bias; shared ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from .. import names
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import squeeze
from . import ernie4_5
from .family import Transform, expert_metadata, refuse_flags, refuse_values, shape_metadata, unsupported

CHOICE: names.Names = {names.LAYER + "mlp.moe_statics.e_score_correction_bias": "blk.{}.exp_probs_b.bias"}


def derived(values: Mapping[str, Any]) -> dict[str, Any]:
    shared, size = values.get("moe_num_shared_experts"), values.get("moe_intermediate_size")
    known = isinstance(shared, int) and isinstance(size, int)
    return {"shared_expert_intermediate_size": shared * size if known and shared and size else 0}


def first_sparse(config: Config) -> int:
    return int(config.get("moe_layer_start_index", 1))


def tensors(config: Config) -> names.Names:
    dense, sparse = range(first_sparse(config)), range(first_sparse(config), config.num_layers)
    shared = names.renamed(names.SHARED_EXPERT, "shared_expert", "shared_experts") if config.shared_size else {}
    return {
        **names.weights(names.BASE),
        **names.in_layers(names.weights(names.GATED_MLP), dense),
        **names.in_layers({**names.weights(names.EXPERTS, shared), **CHOICE}, sparse),
    }


def metadata(config: Config) -> dict[str, Value]:
    return {
        **shape_metadata(config),
        **expert_metadata(config),
        "expert_feed_forward_length": config.expert_size,
        "expert_shared_feed_forward_length": config.shared_size,
        "interleave_moe_layer_step": config.count("moe_layer_interval", 1 << 10),
        "leading_dense_block_count": first_sparse(config),
    }


def transforms(config: Config) -> dict[str, Transform]:
    return {r".*\.exp_probs_b\.bias": squeeze}


def limits(config: Config) -> Iterator[Item]:
    yield from refuse_flags(config, "use_bias")
    yield from refuse_values(config, moe_layer_interval=1)
    end = config.get("moe_layer_end_index", -1)
    if end not in (-1, config.num_layers - 1):
        yield unsupported("moe_layer_end_index", end)


FAMILY = replace(
    ernie4_5.FAMILY,
    arch="ernie4_5-moe",
    classes=("Ernie4_5_MoeForCausalLM",),
    model_types=("ernie4_5_moe",),
    defaults={**ernie4_5.FAMILY.defaults, "moe_layer_interval": 1, "moe_k": 6, "moe_num_shared_experts": 2},
    tensors=tensors,
    derived=derived,
    metadata=metadata,
    transforms=transforms,
    dropped={**ernie4_5.FAMILY.dropped, r"model\.mtp_.*": "multi-token prediction, which decoding does not use"},
    limits=limits,
)
