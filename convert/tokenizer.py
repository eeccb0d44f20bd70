"""A checkpoint's tokenizer as GGUF metadata.

``tokenizer.json`` is the truth where there is one, ``tokenizer.model`` otherwise, then ``vocab.json`` or ``vocab.txt``.
Nothing is recognised by name or hash: what the files say decides. What llama.cpp cannot do is done by
``runtime/normalize.py`` (from the ``ingle.tokenizer.*`` keys), or the file holds the tokenizer.json itself, and our
runtime tokenizes with that; what none of these can do is refused. Whether the result is right is for the proof to say
(``runtime/settle.py``, ``runtime/verify.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import bpe, chat_template, legacy, pretokenizer, special, spm, tokenizerjson, unigram, vocabulary, wordpiece
from .errors import BadCheckpoint
from .gguf import Value
from .jsonfile import read_object
from .report import Item
from .vocabulary import AddedToken, Token, TokenModel, TokenType, Vocabulary

MAX_VOCAB_SIZE = 1 << 22
SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
MOVED_FILE = "sentencepiece.bpe.model"
SENTENCEPIECE_KINDS = {"bpe": "llama", "unigram": "t5"}
SCORED = ("llama", "t5")
EMBEDDED = ("bert", "t5")
"""Kinds that llama.cpp tokenizes with other rules for some text, so the tokenizer.json is always kept."""
NATIVE_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gpt2": {"eos": 11},
    "llama": {"bos": 1, "eos": 2},
    "t5": {"eos": 1},
}
"""Ids that llama.cpp takes for a role which the file does not name; it has no way to say that there is none."""


def read(folder: Path, config: Mapping[str, Any], vocab_size: int, *, embed: bool = False) -> Vocabulary:
    """The vocabulary of the checkpoint in ``folder``.

    config: its config.json, for the special ids. vocab_size: rows of the embedding table; tokens are filled up to it.
    embed: keep the tokenizer.json in the file, and tokenize with it (pairs and offsets need that); WordPiece and
    Unigram always do.

    Raises:
        BadCheckpoint: a file is missing or broken. What is merely not supported is an item with verdict ``fail``.
    """
    if not 0 < vocab_size <= MAX_VOCAB_SIZE:
        raise BadCheckpoint(f"the config speaks of {vocab_size:,} tokens; 1 to {MAX_VOCAB_SIZE:,} are possible")
    settings = _optional_json(folder / "tokenizer_config.json")
    try:
        model = _read_model(folder, settings)
        return _assemble(folder, model, settings, config, vocab_size, embed)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RecursionError) as error:
        raise BadCheckpoint(f"the tokenizer of {folder} is malformed: {repr(error)[:500]}") from error


def sentencepiece_file(folder: Path) -> Path | None:
    return next((path for name in SENTENCEPIECE_FILES if (path := folder / name).is_file()), None)


def around(folder: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a checkpoint's tokenizer puts before and after a text."""
    return _read_model(folder, _optional_json(folder / "tokenizer_config.json")).around


def document(folder: Path) -> str:
    """The folder's tokenizer.json, or what one would say of its older files; empty where it has neither."""
    if (folder / tokenizerjson.FILE).is_file():
        return tokenizerjson.document(tokenizerjson.read(folder))
    content = legacy.read(folder, _optional_json(folder / "tokenizer_config.json"))
    return "" if content is None else tokenizerjson.document(content)


def _read_model(folder: Path, settings: Mapping[str, Any]) -> TokenModel:
    if (folder / tokenizerjson.FILE).is_file():
        return replace(_from_json(tokenizerjson.read(folder), folder, settings), described=True)
    path = sentencepiece_file(folder)
    if path is not None:
        return _from_sentencepiece(folder, path, settings)
    older = legacy.read(folder, settings)
    if older is None:
        raise BadCheckpoint(
            f"{folder} has no tokenizer",
            hint="it needs a tokenizer.json or a tokenizer.model; save both model and tokenizer with save_pretrained",
        )
    tokenizerjson.check(older, folder)
    return replace(_from_json(older, folder, settings), described=True)


def _from_json(tokenizer: Mapping[str, Any], folder: Path, settings: Mapping[str, Any]) -> TokenModel:
    added = tuple(AddedToken.of(entry["id"], entry) for entry in tokenizer.get("added_tokens") or ())
    kind = tokenizer["model"].get("type")
    if kind == "Unigram":
        model = unigram.read(tokenizer, added)
    elif kind == "WordPiece":
        model = wordpiece.read(tokenizer, added)
    elif kind == "BPE" and pretokenizer.flatten(tokenizer.get("pre_tokenizer")).byte_level:
        model = bpe.read_byte_level(tokenizer, added, settings.get("clean_up_tokenization_spaces"))
    elif kind == "BPE":
        model = bpe.read_sentencepiece(tokenizer, added, sentencepiece_file(folder))
    else:
        return _unsupported(f"{kind} tokenizers")
    return _with_around(model, tokenizer.get("post_processor"))


def _with_around(model: TokenModel, post_processor: Mapping[str, Any] | None) -> TokenModel:
    try:
        return replace(model, around=special.around(post_processor), between=special.between(post_processor))
    except special.UnknownProcessor as error:
        return replace(model, items=(*model.items, Item("added ids", "fail", f"not supported: {error}")))


def _unsupported(what: str) -> TokenModel:
    return TokenModel("", {}, (), {}, items=(Item("tokenizer", "fail", f"{what} are not supported"),))


def is_fairseq(folder: Path) -> bool:
    """Whether the ids of the model are not those of its ``sentencepiece.bpe.model``, but XLM-RoBERTa's."""
    return legacy.kind(folder, _optional_json(folder / "tokenizer_config.json")) == "XLMRoberta"


def _sentencepiece_model(folder: Path, path: Path) -> spm.SentencePieceModel:
    model = spm.read(path)
    return spm.fairseq(model) if is_fairseq(folder) else model


def _from_sentencepiece(folder: Path, path: Path, settings: Mapping[str, Any]) -> TokenModel:
    if path.name == MOVED_FILE and not is_fairseq(folder):
        return _unsupported(
            f"{MOVED_FILE} files, whose ids the class of the tokenizer changes in a way that is unknown,"
        )
    model = _sentencepiece_model(folder, path)
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
    """Where the configuration does not say: bos before for BPE (as Llama's), eos after for Unigram (as T5's), both for
    one with a mask (XLM-RoBERTa's)."""
    bos = settings.get("add_bos_token", model.algorithm == "bpe" or "mask" in model.special_ids)
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
    folder: Path,
    model: TokenModel,
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
    vocab_size: int,
    embed: bool,
) -> Vocabulary:
    if not model.kind:
        return Vocabulary({}, model.items)
    tokens, items = vocabulary.fill(model, vocab_size)
    specials = _special_tokens(folder, model, tokens, settings, config)
    adding, adding_items = _adding(model, specials)
    templates = chat_template.find(folder, settings)
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": model.kind,
        **model.settings,
        **vocabulary.arrays(tokens, scored=model.kind in SCORED),
        **special.metadata(specials),
        **adding,
        **_around_added(model),
        **chat_template.metadata(templates),
    }
    items += [*model.items, *specials.items, *_unset(model.kind, specials.ids), *adding_items, *_single_words(model)]
    embeds = model.described and (embed or model.kind in EMBEDDED or any(token.single_word for token in model.added))
    if embeds:
        items = [_softened(item, model.kind) for item in items]
    made = Vocabulary(metadata, (*items, chat_template.item(templates)), model.pre_candidates, model.described)
    return made.with_document(document(folder)) if embeds else made


def _adding(model: TokenModel, specials: special.SpecialTokens) -> tuple[dict[str, Value], list[Item]]:
    """Other programs put a pair together from these; llama.cpp assumes a separator for WordPiece unless told."""
    separates = special.separates(model.around, model.between, specials.ids)
    separator: dict[str, Value] = {"tokenizer.ggml.add_sep_token": separates}
    if model.kind != "bert":
        values, items = special.adding(model.around, specials.ids)
        return {**values, **(separator if separates else {})}, items
    values, items = special.adding(model.around, {**specials.ids, "eos": specials.ids["sep"]})
    return {**values, **separator}, items


def _softened(item: Item, kind: str) -> Item:
    """What other programs on llama.cpp do differently, and ours does not: it reads the tokenizer.json in the file."""
    soft = item.name in ("added ids", "normalizer", "added tokens") or (item.name == "byte fallback" and kind == "t5")
    if not soft or item.verdict != "fail":
        return item
    return Item(item.name, "warn", f"only ingle does this, with the tokenizer.json that the file holds: {item.detail}")


def _special_tokens(
    folder: Path, model: TokenModel, tokens: list[Token], settings: Mapping[str, Any], config: Mapping[str, Any]
) -> special.SpecialTokens:
    ids_by_text = {token.text: token_id for token_id, token in enumerate(tokens) if token.type is not TokenType.UNUSED}
    unknown = [token_id for token_id, token in enumerate(tokens) if token.type is TokenType.UNKNOWN]
    generation = _optional_json(folder / "generation_config.json")
    found = special.read(
        (settings, _optional_json(folder / "special_tokens_map.json"), _implied_texts(folder, settings)),
        (config, config.get("text_config") or {}, generation),
        ids_by_text,
        len(tokens),
        {"unk": unknown[0]} if unknown else {},
    )
    return special.around_words(found, model.around, ids_by_text) if model.kind == "bert" else found


def _implied_texts(folder: Path, settings: Mapping[str, Any]) -> Mapping[str, str]:
    """The special tokens that a ``tokenizer.model`` names, or the class of older files, where that is all there is."""
    if (folder / tokenizerjson.FILE).is_file():
        return {}
    path = sentencepiece_file(folder)
    if path is None:
        return legacy.special_texts(folder, settings)
    model = _sentencepiece_model(folder, path)
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
        shown = ", ".join(map(repr, texts[:5])) + (", …" if len(texts) > 5 else "")
        yield Item("added tokens", "fail", f"llama.cpp finds these inside words, too: {shown}")


def _unset(kind: str, ids: Mapping[str, int]) -> Iterator[Item]:
    for role, token_id in NATIVE_DEFAULTS.get(kind, {}).items():
        if role not in ids:
            detail = (
                f"no {role} is named; ingle has none then, but other programs on llama.cpp take id {token_id} for it"
            )
            yield Item("special tokens", "warn", detail)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
