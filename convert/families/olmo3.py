"""OLMo 3: OLMo 2 with three windowed layers to one full; only full layers have a scaled rotary embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import rope
from ..config import MAX_CONTEXT, Config
from ..gguf import Value
from ..report import Item
from . import olmo2
from .family import shape_metadata, window_pattern


def metadata(config: Config) -> dict[str, Value]:
    keys: dict[str, Value] = {
        **shape_metadata(config),
        **window_pattern(config, period=4),
        "attention.sliding_window": config.count("sliding_window", MAX_CONTEXT),
    }
    if config.rope_local is not None and config.rope_local.theta != config.rope.theta:
        keys["rope.freq_base_swa"] = config.rope_local.theta
    return keys


def limits(config: Config) -> Iterator[Item]:
    yield from olmo2.limits(config)
    if config.rope_local is not None and (reason := rope.problem(config.rope_local, frozenset({"default"}))):
        yield Item("rope", "fail", f"the windowed layers' {reason}")


FAMILY = replace(
    olmo2.FAMILY,
    classes=("Olmo3ForCausalLM",),
    model_types=("olmo3",),
    defaults={**olmo2.FAMILY.defaults, "max_position_embeddings": 65536, "rope_theta": 500_000.0,
              "sliding_window": 4096},
    metadata=metadata,
    limits=limits,
)  # fmt: skip
