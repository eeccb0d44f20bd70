"""WordPiece of a tokenizer.json (llama.cpp's ``bert``): the longest piece first, words marked at their beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .gguf import Value
from .report import Item
from .vocabulary import AddedToken, Token, TokenModel, TokenType

WORD_START = "▁"
CONTINUED = "##"


def read(tokenizer: Mapping[str, Any], added: tuple[AddedToken, ...]) -> TokenModel:
    """llama.cpp marks the pieces that begin a word, tokenizer.json those that go on with one."""
    model = tokenizer["model"]
    prefix, unknown = model.get("continuing_subword_prefix", CONTINUED), model.get("unk_token", "[UNK]")
    normalizer = tokenizer.get("normalizer") or {}
    apart = {token.text for token in added} | {unknown}
    tokens = {
        token_id: Token(
            text if text in apart else _marked(text, prefix),
            TokenType.UNKNOWN if text == unknown else TokenType.NORMAL,
        )
        for text, token_id in model["vocab"].items()
    }
    lowercase = bool(normalizer.get("lowercase"))
    accents = normalizer.get("strip_accents")
    settings: dict[str, Value] = {
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": lowercase if accents is None else bool(accents),
    }
    return TokenModel("bert", tokens, added, settings, items=tuple(_items(tokenizer, prefix, unknown)))


def _marked(text: str, prefix: str) -> str:
    """``##ing`` → ``ing``, ``king`` → ``▁king``; names in brackets are no words and stay."""
    if text.startswith("[") and text.endswith("]") and len(text) > 2:
        return text
    return text[len(prefix) :] if text.startswith(prefix) and text != prefix else WORD_START + text


def _items(tokenizer: Mapping[str, Any], prefix: str, unknown: str) -> Iterator[Item]:
    yield Item("tokenizer", "ok", "WordPiece")
    if not prefix:
        yield Item("tokenizer", "fail", "WordPiece whose pieces do not show where a word goes on is not supported")
    if unknown not in tokenizer["model"]["vocab"]:
        yield Item("tokenizer", "fail", f"the unknown token {unknown!r} is not in the vocabulary")
    for name, wanted in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        part = tokenizer.get(name)
        if (part or {}).get("type") != wanted:
            yield Item("normalizer", "fail", f"WordPiece with the {name} {part} is not what llama.cpp does")
    if (tokenizer.get("normalizer") or {}).get("handle_chinese_chars") is False:
        yield Item("normalizer", "fail", "llama.cpp always makes words of Chinese characters")
