"""ELECTRA, where its embedding is as wide as its layers: then it is BERT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import heads
from ..config import Config
from ..report import Item
from . import bert


def limits(config: Config) -> Iterator[Item]:
    yield from bert.limits(config)
    width = config.get("embedding_size", config.hidden_size)
    if width != config.hidden_size:
        yield Item(
            "config",
            "fail",
            f"embedding_size {width} differs from hidden_size {config.hidden_size}: such an ELECTRA projects its "
            "embedding, which llama.cpp's graph of BERT does not",
            hint="the base and large models have no projection",
        )


FAMILY = replace(
    bert.FAMILY,
    classes=("ElectraModel", *heads.classes(("Electra",))),
    model_types=("electra",),
    defaults={**bert.FAMILY.defaults, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024,
              "embedding_size": 128},
    tensors=lambda config: bert.tensors("electra."),
    optional=lambda config: {},
    limits=limits,
    root="electra.",
    embedding="electra.embeddings.word_embeddings.weight",
)  # fmt: skip
