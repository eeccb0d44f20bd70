"""Special tokens: which id is bos, eos, pad ..., where generation stops, what is put around a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


def around(post_processor: Mapping[str, Any] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the ``post_processor`` of a tokenizer.json puts before and after a single text.

    Raises:
        ValueError: it is of a kind we do not know.
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
        return (post_processor["cls"][1],), (post_processor["sep"][1],)
    if kind == "TemplateProcessing":
        return _template_ids(post_processor)
    raise ValueError(f"post_processor of type {kind!r}")


def adding(
    around: tuple[tuple[int, ...], tuple[int, ...]], ids: Mapping[str, int]
) -> tuple[dict[str, Value], list[Item]]:
    """``add_bos_token`` and ``add_eos_token`` for what is put around a text; GGUF knows nothing but bos and eos."""
    before, after = around
    bos, eos = tuple(_optional(ids.get("bos"))), tuple(_optional(ids.get("eos")))
    fits = before in ((), bos) and after in ((), eos)
    detail = f"before a text {list(before)}, after it {list(after)}"
    if not fits:
        detail += f"; GGUF can only express bos {list(bos)} and eos {list(eos)}"
    values: dict[str, Value] = {
        "tokenizer.ggml.add_bos_token": bool(before),
        "tokenizer.ggml.add_eos_token": bool(after),
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
