"""RoBERTa, XLM-RoBERTa, CamemBERT: BERT whose positions are counted from behind the padding token's id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .. import heads
from ..config import Config
from ..gguf import Value
from ..report import Item
from ..transforms import Rows, rows_from
from . import bert
from .family import Transform


def skipped(config: Config) -> int:
    """Rows of the position table that no token ever has."""
    return 1 + int(config.get("pad_token_id", 1))


def transforms(config: Config) -> dict[str, Transform]:
    def used(rows: Rows) -> Rows:
        return rows_from(rows, skipped(config))

    return {r"position_embd\.weight": used}


def metadata(config: Config) -> dict[str, Value]:
    return {**bert.metadata(config), "context_length": config.context_length - skipped(config)}


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    return {**bert.shapes(config), "position_embd": (config.context_length - skipped(config), config.hidden_size)}


def limits(config: Config) -> Iterator[Item]:
    yield from bert.limits(config)
    if config.context_length <= skipped(config):
        yield Item("config", "fail", f"{config.context_length} positions, of which {skipped(config)} are for padding")


FAMILY = replace(
    bert.FAMILY,
    classes=(*(f"{stem}Model" for stem in heads.ROBERTAS), *heads.classes(heads.ROBERTAS)),
    model_types=("roberta", "xlm-roberta", "camembert"),
    defaults={**bert.FAMILY.defaults, "vocab_size": 50265, "pad_token_id": 1},
    tensors=lambda config: bert.tensors("roberta."),
    optional=lambda config: bert.pooler("roberta."),
    transforms=transforms,
    metadata=metadata,
    shapes=shapes,
    limits=limits,
    root="roberta.",
    embedding="roberta.embeddings.word_embeddings.weight",
)
