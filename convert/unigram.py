"""Unigram of a tokenizer.json (llama.cpp's ``t5``): pieces with log probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import normalizer
from .gguf import Value
from .normalizer import Normalization
from .report import Item
from .vocabulary import AddedToken, Token, TokenModel, TokenType


def read(tokenizer: Mapping[str, Any], added: tuple[AddedToken, ...]) -> TokenModel:
    """A text that loses its extra spaces gets its space prefix from llama.cpp; any other gets it from us, because
    llama.cpp would put it behind leading spaces."""
    model = tokenizer["model"]
    normal = normalizer.read(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"))
    tokens = {
        token_id: Token(text, TokenType.UNKNOWN if token_id == model.get("unk_id") else TokenType.NORMAL, score)
        for token_id, (text, score) in enumerate(model["vocab"])
    }
    settings: dict[str, Value] = {
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": normal.merges_spaces and bool(normal.prefix),
        "tokenizer.ggml.remove_extra_whitespaces": normal.merges_spaces,
    }
    if normal.charsmap:
        settings["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(normal.charsmap, np.uint8)
    settings.update((replace(normal, prefix="") if normal.merges_spaces else normal).settings())
    return TokenModel("t5", tokens, added, settings, items=tuple(_items(model, normal)))


def _items(model: Mapping[str, Any], normal: Normalization) -> Iterator[Item]:
    yield Item("tokenizer", "ok", "Unigram")
    if normal.unknown or normal.form:
        yield Item("normalizer", "fail", f"steps that are not supported: {'; '.join((*normal.unknown, normal.form))}")
    if not normal.escapes_spaces:
        yield Item("normalizer", "fail", "spaces do not become '▁', as llama.cpp would make them")
    if normal.prefix == "before":
        yield Item("normalizer", "fail", "Prepend is not supported with Unigram")
    if model.get("byte_fallback"):
        yield Item("byte fallback", "fail", "llama.cpp has no byte fallback for Unigram")
    if model.get("unk_id") is None:
        yield Item("tokenizer", "fail", "llama.cpp needs an unknown token for Unigram")
