"""Special tokens: which id is bos, eos, pad ..., where generation stops, what is put around a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .gguf import Value
from .report import Item

ID_KEYS: Mapping[str, str] = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",  # spelt so in the format
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
}
NATIVE_STOP_KEYS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
STOP_KEY = "ingle.stop_token_ids"
TEXTS_KEY = "ingle.special_tokens"

Around = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids put before and after a text."""


class UnknownProcessor(Exception):
    """A post_processor whose kind we do not know."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """ids: by role (bos, eos, ...). stop: every id that ends an answer, eos first. texts: what a chat template sees
    (``bos_token``, ...)."""

    ids: Mapping[str, int]
    stop: tuple[int, ...]
    texts: Mapping[str, str]
    items: tuple[Item, ...]


def read(
    tokenizer_configs: Sequence[Mapping[str, Any]],
    model_configs: Sequence[Mapping[str, Any]],
    ids_by_text: Mapping[str, int],
    vocab_size: int,
    defaults: Mapping[str, int],
) -> SpecialTokens:
    """The first of ``tokenizer_configs`` (texts) that names a role decides, then ``model_configs`` (ids), then
    ``defaults``. Every eos that any of them names stops an answer."""
    texts = _texts(tokenizer_configs)
    ids = {
        role: token_id
        for role in ID_KEYS
        if (token_id := _first_id(role, texts, model_configs, ids_by_text, vocab_size, defaults)) is not None
    }
    named = (token_id for config in model_configs for token_id in _config_ids(config, "eos"))
    stop = tuple(
        dict.fromkeys(token_id for token_id in (*_optional(ids.get("eos")), *named) if 0 <= token_id < vocab_size)
    )
    return SpecialTokens(ids, stop, texts, tuple(_items(texts, ids_by_text, stop)))


def metadata(special: SpecialTokens) -> dict[str, Value]:
    """Ids under the keys of llama.cpp; the complete stop set and the texts under our own."""
    values: dict[str, Value] = {ID_KEYS[role]: token_id for role, token_id in special.ids.items()}
    others = [token_id for token_id in special.stop if token_id != special.ids.get("eos")]
    values.update(zip(NATIVE_STOP_KEYS, others, strict=False))
    values[STOP_KEY] = np.array(special.stop, np.uint32)
    values[TEXTS_KEY] = json.dumps(special.texts, ensure_ascii=False)
    return values


def around(post_processor: Mapping[str, Any] | None) -> Around:
    """The ids that the ``post_processor`` of a tokenizer.json puts before and after a single text.

    Raises:
        UnknownProcessor: it is of a kind we do not know. ValueError: it names ids that are none.
    """
    kind = (post_processor or {"type": "ByteLevel"}).get("type")
    if post_processor is None or kind == "ByteLevel":
        return (), ()
    if kind == "Sequence":
        pairs = [around(part) for part in post_processor["processors"]]
        return tuple(token_id for before, _ in reversed(pairs) for token_id in before), tuple(
            token_id for _, after in pairs for token_id in after
        )
    if kind in ("BertProcessing", "RobertaProcessing"):
        return _checked([post_processor["cls"][1]]), _checked([post_processor["sep"][1]])
    if kind == "TemplateProcessing":
        before, after = _template_ids(post_processor)
        return _checked(before), _checked(after)
    raise UnknownProcessor(f"post_processor of type {str(kind)[:80]!r}")


def between(post_processor: Mapping[str, Any] | None) -> tuple[int, ...]:
    """The ids that it puts between two texts; none where it does not say how a pair is put together."""
    kind = (post_processor or {}).get("type")
    if post_processor is None or kind == "ByteLevel":
        return ()
    if kind == "Sequence":
        return next(filter(None, map(between, post_processor["processors"])), ())
    if kind == "TemplateProcessing":
        return _checked(_between_ids(post_processor))
    return _checked([post_processor["sep"][1]] * (2 if kind == "RobertaProcessing" else 1))


def separates(around: Around, between: tuple[int, ...], ids: Mapping[str, int]) -> bool:
    """Whether there is a separator between two texts besides what stands behind any text."""
    after = around[1]
    return between[: len(after)] == after and between[len(after) :] == tuple(_optional(ids.get("sep"))) != ()


def _between_ids(post_processor: Mapping[str, Any]) -> list[int]:
    pieces = post_processor.get("pair") or []
    places = [index for index, piece in enumerate(pieces) if "Sequence" in piece]
    special = post_processor["special_tokens"]
    inner = pieces[places[0] + 1 : places[1]] if len(places) == 2 else []
    return [token_id for piece in inner for token_id in special[piece["SpecialToken"]["id"]]["ids"]]


def _checked(ids: Sequence[Any]) -> tuple[int, ...]:
    if not all(type(token_id) is int and token_id >= 0 for token_id in ids):
        raise ValueError(f"the post_processor names the ids {str(ids)[:80]}")
    return tuple(ids)


def around_words(special: SpecialTokens, around: Around, ids_by_text: Mapping[str, int]) -> SpecialTokens:
    """For WordPiece, around which llama.cpp always puts its "bos" and its separator: [CLS] and [SEP]."""
    found = dict(special.ids)
    for role, name, own in (("bos", "cls_token", around[0]), ("sep", "sep_token", around[1])):
        named = ids_by_text.get(special.texts.get(name, ""))
        candidates = (*own[:1], *_optional(named), *_optional(found.get(role)), 0)
        found[role] = candidates[0]
    return replace(special, ids=found)


def adding(around: Around, ids: Mapping[str, int]) -> tuple[dict[str, Value], list[Item]]:
    """``add_bos_token`` and ``add_eos_token`` for what is put around a text; GGUF knows nothing but bos and eos."""
    before, after = around
    bos, eos = tuple(_optional(ids.get("bos"))), tuple(_optional(ids.get("eos")))
    fits = before in ((), bos) and after in ((), eos)
    detail = f"before a text {list(before)}, after it {list(after)}"
    if not fits:
        detail += f"; GGUF can only express bos {list(bos)} and eos {list(eos)}"
    values: dict[str, Value] = {
        "tokenizer.ggml.add_bos_token": bool(before) and before == bos,
        "tokenizer.ggml.add_eos_token": bool(after) and after == eos,
    }
    return values, [Item("added ids", "ok" if fits else "fail", detail)]


def _template_ids(post_processor: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before: list[int] = []
    after: list[int] = []
    target = before
    for piece in post_processor["single"]:
        if "Sequence" in piece:
            target = after
        else:
            target.extend(post_processor["special_tokens"][piece["SpecialToken"]["id"]]["ids"])
    return tuple(before), tuple(after)


def _texts(configs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """``*_token`` entries: a text, or an object with one; the first config that has a role decides."""
    texts: dict[str, str] = {}
    for config in configs:
        for name, value in config.items():
            text = value.get("content") if isinstance(value, Mapping) else value
            if name.endswith("_token") and isinstance(text, str):
                texts.setdefault(name, text)
    return texts


def _first_id(
    role: str,
    texts: Mapping[str, str],
    configs: Iterable[Mapping[str, Any]],
    ids_by_text: Mapping[str, int],
    vocab_size: int,
    defaults: Mapping[str, int],
) -> int | None:
    named = ids_by_text.get(texts.get(f"{role}_token", ""))
    candidates = [
        named,
        *(token_id for config in configs for token_id in _config_ids(config, role)),
        defaults.get(role),
    ]
    return next((token_id for token_id in candidates if token_id is not None and 0 <= token_id < vocab_size), None)


def _config_ids(config: Mapping[str, Any], role: str) -> Iterator[int]:
    value = config.get(f"{role}_token_id")
    for token_id in value if isinstance(value, list) else [value]:
        if isinstance(token_id, int) and not isinstance(token_id, bool):
            yield token_id


def _optional(token_id: int | None) -> Iterator[int]:
    if token_id is not None:
        yield token_id


def _items(texts: Mapping[str, str], ids_by_text: Mapping[str, int], stop: Sequence[int]) -> Iterator[Item]:
    for name, text in texts.items():
        if text not in ids_by_text:
            yield Item("special tokens", "warn", f"{name} {text!r} is not in the vocabulary")
    if stop:
        yield Item("stop set", "ok", f"generation ends at {list(stop)}")
    else:
        yield Item("stop set", "warn", "no end-of-text token is named; an answer ends only at its length")
