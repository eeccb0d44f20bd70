"""``ingle convert --check``: each aspect of a checkpoint looked at, with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from . import attach, contract, metadata, modelcard, plan, report, rope
from .errors import UnsupportedModel
from .report import Item, Report
from .source import Source
from .vision import has_vision


def check(folder: Path, dtype: str = "auto") -> Report:
    """A verdict per item, from headers and configs only; nothing of a tensor is read, nothing is written.

    Never raises for what is wrong with the checkpoint: that is an item with verdict ``fail``.
    """
    return report.look(Source(folder, dtype), ASPECTS)


def warnings(source: Source) -> tuple[Item, ...]:
    """The warnings about a checkpoint that can be converted. Raises the first failure of one that cannot."""
    items = [item for _, look in ASPECTS for item in sound(look(source))]
    return tuple(item for item in items if item.verdict == "warn")


def sound(items: Iterator[Item]) -> Iterator[Item]:
    """The items as they are; raises the first that failed."""
    for item in items:
        if item.verdict == "fail":
            raise UnsupportedModel(f"{item.name}: {item.detail}", hint=item.hint)
        yield item


def _architecture(source: Source) -> Iterator[Item]:
    yield Item("architecture", "ok", f"{source.family.classes[0]} → {source.family.arch}")


def _config(source: Source) -> Iterator[Item]:
    family, config = source.family, source.config
    yield Item(
        "config",
        "ok",
        f"{config.num_layers} layers of {config.hidden_size:,}, {config.num_heads} heads ({config.num_kv_heads} kv) "
        f"of {config.head_dim}, {config.vocab_size:,} tokens, context {config.context_length:,}",
    )
    if config.activation not in family.activations:
        yield Item("config", "fail", f"hidden_act {config.activation!r} is not what llama.cpp computes: "
                   f"{', '.join(family.activations)}")  # fmt: skip
    if family.square and config.head_dim * config.num_heads != config.hidden_size:
        yield Item("config", "fail", f"{family.arch} needs head_dim × heads = {config.hidden_size}, not "
                   f"{config.head_dim} × {config.num_heads}")  # fmt: skip
    yield from family.limits(config)


def _rope(source: Source) -> Iterator[Item]:
    family, embedding = source.family, source.config.rope
    if not family.rope_types:
        return
    if reason := rope.problem(embedding, family.rope_types):
        yield Item("rope", "fail", reason)
        return
    if embedding.partial_factor != 1 and not family.partial_rotary:
        yield Item("rope", "fail", f"partial_rotary_factor {embedding.partial_factor} does not exist for {family.arch}")
        return
    family.metadata(source.config)
    family.computed(source.config)
    yield Item("rope", "ok", f"{embedding.type}, theta {embedding.theta:g}")


def _tensors(source: Source) -> Iterator[Item]:
    plans = source.plans
    files = {tensor.file for tensor in source.tensors.values()}
    yield Item("tensors", "ok", f"{len(plans)} from {len(source.tensors)} in {len(files)} file(s)")
    dropped = source.matched.dropped
    for reason in dict.fromkeys(dropped.values()):
        names = [name for name, why in dropped.items() if why == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Item("left out", "ok", f"{names[0]}{more}: {reason}")


def _head(source: Source) -> Iterator[Item]:
    if source.attached:
        yield Item("head", "ok", attach.summary(source.attached, source.config))


def _vision(source: Source) -> Iterator[Item]:
    if source.projection:
        yield from source.projection.check()
    elif has_vision(source.raw):
        yield Item("vision", "warn", f"{source.family.classes[0]}: of this family only the language model is converted",
                   hint="the model reads text only")  # fmt: skip


def _dtype(source: Source) -> Iterator[Item]:
    yield Item("dtype", "ok", f"{plan.source_dtype(source.matched)} → {source.dtype}")


def _tokenizer(source: Source) -> Iterator[Item]:
    yield from source.vocabulary.items


def _contract(source: Source) -> Iterator[Item]:
    breaches = list(contract.breaches(source.metadata, source.plans))
    yield from breaches
    if not breaches:
        arch = source.family.arch
        yield Item("contract", "ok", f"all {len(contract.required(arch))} keys that llama.cpp requires of {arch}")


def _size(source: Source) -> Iterator[Item]:
    label = metadata.size_label(source.num_parameters)
    yield Item("size", "ok", f"{label} parameters, {source.size_bytes:,} bytes as {source.dtype}")


def _licence(source: Source) -> Iterator[Item]:
    name = modelcard.first(modelcard.read(source.folder), "license")
    yield Item("licence", "ok", name) if name else Item("licence", "warn", "the model card (README.md) names none")


ASPECTS: tuple[tuple[str, Callable[[Source], Iterator[Item]]], ...] = (
    ("architecture", _architecture),
    ("config", _config),
    ("rope", _rope),
    ("tensors", _tensors),
    ("head", _head),
    ("vision", _vision),
    ("dtype", _dtype),
    ("tokenizer", _tokenizer),
    ("contract", _contract),
    ("size", _size),
    ("licence", _licence),
)
