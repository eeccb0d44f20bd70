"""A checkpoint's tokenizer as GGUF metadata.

``tokenizer.json`` is the truth where there is one, ``tokenizer.model`` otherwise. Nothing is recognised by name or
hash: what the files say decides, and what llama.cpp cannot do is refused (or done by ``runtime/normalize.py``, from
the ``ingle.tokenizer.*`` keys). Whether the result is right is for the proof to say (``runtime/verify.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import bpe, chat_template, pretokenizer, special, spm, unigram, vocabulary
from .errors import BadCheckpoint
from .gguf import Value
from .jsonfile import read_object
from .report import Item
from .vocabulary import AddedToken, Token, TokenModel, TokenType, Vocabulary

MAX_TOKENIZER_BYTES = 64 << 20
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
SENTENCEPIECE_KINDS = {"bpe": "llama", "unigram": "t5"}
NATIVE_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"eos": 11},
    "llama": {"bos": 1, "eos": 2},
    "t5": {"eos": 1},
}
"""Ids that llama.cpp takes for a role which the file does not name; it has no way to say that there is none."""


def read(folder: Path, config: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """The vocabulary of the checkpoint in ``folder``.

    config: its config.json, for the special ids. vocab_size: rows of the embedding table; tokens are filled up to it.

    Raises:
        BadCheckpoint: a file is missing or broken. What is merely not supported is an item with verdict ``fail``.
    """
    settings = _optional_json(folder / "tokenizer_config.json")
    try:
        model = _read_model(folder, settings)
        return _assemble(folder, model, settings, config, vocab_size)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadCheckpoint(f"the tokenizer of {folder} is malformed: {error!r}") from error


def sentencepiece_file(folder: Path) -> Path | None:
    return next((path for name in SENTENCEPIECE_FILES if (path := folder / name).is_file()), None)


def around(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a checkpoint's tokenizer puts before and after a text."""
    return _read_model(folder, _optional_json(folder / "tokenizer_config.json")).around


def _read_model(folder: Path, settings: Mapping[str, Any]) -> TokenModel:
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder, settings)
    path = sentencepiece_file(folder)
    if path is None:
        raise BadCheckpoint(
            f"{folder} has no tokenizer",
            hint="it needs a tokenizer.json or a tokenizer.model; save both model and tokenizer with save_pretrained",
        )
    return _from_sentencepiece(path, settings)


def _from_json(folder: Path, settings: Mapping[str, Any]) -> TokenModel:
    tokenizer = read_object(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
    added = tuple(AddedToken.of(entry["id"], entry) for entry in tokenizer.get("added_tokens", ()))
    kind = tokenizer["model"].get("type")
    if kind == "Unigram":
        model = unigram.read(tokenizer, added)
    elif kind == "BPE" and pretokenizer.flatten(tokenizer.get("pre_tokenizer")).byte_level:
        model = bpe.read_byte_level(tokenizer, added, settings.get("clean_up_tokenization_spaces"))
    elif kind == "BPE":
        model = bpe.read_sentencepiece(tokenizer, added, sentencepiece_file(folder))
    else:
        return _unsupported(f"{kind} tokenizers")
    return _with_around(model, tokenizer.get("post_processor"))


def _with_around(model: TokenModel, post_processor: Mapping[str, Any] | None) -> TokenModel:
    try:
        return replace(model, around=special.around(post_processor))
    except ValueError as error:
        return replace(model, items=(*model.items, Item("added ids", "fail", f"not supported: {error}")))


def _unsupported(what: str) -> TokenModel:
    return TokenModel("", {}, (), {}, items=(Item("tokenizer", "fail", f"{what} are not supported"),))


def _from_sentencepiece(path: Path, settings: Mapping[str, Any]) -> TokenModel:
    model = spm.read(path)
    kind = SENTENCEPIECE_KINDS.get(model.algorithm)
    if kind is None:
        return _unsupported(f"sentencepiece {model.algorithm} models")
    metadata: dict[str, Value] = {
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.add_space_prefix": model.add_dummy_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": model.remove_extra_spaces,
    }
    if model.charsmap:
        metadata["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(model.charsmap, np.uint8)
    decoder = settings.get("added_tokens_decoder") or {}
    added = tuple(AddedToken.of(int(token_id), entry) for token_id, entry in decoder.items())
    tokens = dict(enumerate(model.pieces))
    items = (Item("tokenizer", "ok", f"sentencepiece {model.algorithm}"), *_sentencepiece_items(model))
    return TokenModel(kind, tokens, added, metadata, _sentencepiece_around(model, settings), items=items)


def _sentencepiece_around(
    model: spm.SentencePieceModel, settings: Mapping[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the configuration does not say: bos before for BPE (as Llama's), eos after for Unigram (as T5's)."""
    bos = settings.get("add_bos_token", model.algorithm == "bpe")
    eos = settings.get("add_eos_token", model.algorithm == "unigram")
    ids = model.special_ids
    return (ids["bos"],) if bos and "bos" in ids else (), (ids["eos"],) if eos and "eos" in ids else ()


def _sentencepiece_items(model: spm.SentencePieceModel) -> Iterator[Item]:
    if model.algorithm == "bpe" and (model.charsmap or model.remove_extra_spaces):
        yield Item("normalizer", "fail", "llama.cpp does not rewrite characters or spaces for sentencepiece BPE")
    if model.algorithm == "bpe" and sum(piece.type is TokenType.BYTE for piece in model.pieces) != 256:
        yield Item("byte fallback", "fail", "llama.cpp needs all 256 byte tokens")
    if model.algorithm == "unigram" and model.byte_fallback:
        yield Item("byte fallback", "fail", "llama.cpp has no byte fallback for Unigram")
    if not model.escape_spaces or model.space_is_suffix:
        yield Item("normalizer", "fail", "spaces that stay, or stand behind words, are not supported")


def _assemble(
    folder: Path, model: TokenModel, settings: Mapping[str, Any], config: Mapping[str, Any], vocab_size: int
) -> Vocabulary:
    if not model.kind:
        return Vocabulary({}, model.items)
    tokens, items = vocabulary.fill(model, vocab_size)
    specials = _special_tokens(folder, model, tokens, settings, config)
    adding, adding_items = special.adding(model.around, specials.ids)
    templates = chat_template.find(folder, settings)
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": model.kind,
        **model.settings,
        **vocabulary.arrays(tokens, scored=model.kind != "gpt2"),
        **special.metadata(specials),
        **adding,
        **_around_added(model),
        **chat_template.metadata(templates),
    }
    items += [*model.items, *specials.items, *_unset(model.kind, specials.ids), *adding_items, *_single_words(model)]
    return Vocabulary(metadata, (*items, chat_template.item(templates)), model.pre_candidates)


def _special_tokens(
    folder: Path, model: TokenModel, tokens: list[Token], settings: Mapping[str, Any], config: Mapping[str, Any]
) -> special.SpecialTokens:
    ids_by_text = {token.text: token_id for token_id, token in enumerate(tokens) if token.type is not TokenType.UNUSED}
    unknown = [token_id for token_id, token in enumerate(tokens) if token.type is TokenType.UNKNOWN]
    generation = _optional_json(folder / "generation_config.json")
    return special.read(
        (settings, _optional_json(folder / "special_tokens_map.json"), _piece_texts(folder)),
        (config, config.get("text_config") or {}, generation),
        ids_by_text,
        len(tokens),
        {"unk": unknown[0]} if unknown else {},
    )


def _piece_texts(folder: Path) -> dict[str, str]:
    """The special tokens that a ``tokenizer.model`` names, where that is all there is."""
    path = sentencepiece_file(folder)
    if path is None or (folder / "tokenizer.json").is_file():
        return {}
    model = spm.read(path)
    return {f"{role}_token": model.pieces[token_id].text for role, token_id in model.special_ids.items()}


def _around_added(model: TokenModel) -> dict[str, Value]:
    """Added tokens that swallow the space beside them: GGUF has no place for this. Where our own normalisation is
    needed at all, it must know every added token, because it works on the text between them."""
    texts = {
        "ingle.tokenizer.lstrip": [token.text for token in model.added if token.lstrip],
        "ingle.tokenizer.rstrip": [token.text for token in model.added if token.rstrip],
    }
    values: dict[str, Value] = {key: found for key, found in texts.items() if found}
    if values or any(key.startswith("ingle.tokenizer.") for key in model.settings):
        values["ingle.tokenizer.added"] = [token.text for token in model.added]
    return values


def _single_words(model: TokenModel) -> Iterator[Item]:
    texts = [token.text for token in model.added if token.single_word]
    if texts:
        yield Item("added tokens", "warn", f"llama.cpp finds these inside words, too: {', '.join(map(repr, texts))}")


def _unset(kind: str, ids: Mapping[str, int]) -> Iterator[Item]:
    for role, token_id in NATIVE_DEFAULTS.get(kind, {}).items():
        if role not in ids:
            detail = (
                f"no {role} is named; ingle has none then, but other programs on llama.cpp take id {token_id} for it"
            )
            yield Item("special tokens", "warn", detail)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
