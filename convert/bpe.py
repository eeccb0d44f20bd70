"""BPE of a tokenizer.json: byte-level (llama.cpp's ``gpt2``) and SentencePiece-style (llama.cpp's ``llama``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import normalizer, pretokenizer, spm
from .errors import BadCheckpoint
from .gguf import Value
from .normalizer import SPACE, Normalization
from .pretokenizer import Pretokenizer, Row
from .report import Item
from .vocabulary import AddedToken, Token, TokenModel, TokenType

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
UNBUILT_SCORE = -1e9
"""Score of a piece that no merge builds; lower than any rank."""

Merge = tuple[str, str]


def read_byte_level(
    tokenizer: Mapping[str, Any], added: tuple[AddedToken, ...], clean_up_spaces: bool | None
) -> TokenModel:
    """``clean_up_spaces``: whether spaces before punctuation go when text is decoded; None where nothing is said."""
    model = tokenizer["model"]
    merges = read_merges(model)
    cut = pretokenizer.flatten(tokenizer.get("pre_tokenizer"))
    ignore_merges = bool(model.get("ignore_merges"))
    rows = pretokenizer.find(cut, ignore_merges)
    normal = normalizer.read(tokenizer.get("normalizer"))
    settings: dict[str, Value] = {
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges if " " not in left + right],
        **normal.settings(),
    }
    if cut.add_prefix_space:
        settings["ingle.tokenizer.space_prefix"] = "always"
    likely = rows or pretokenizer.guesses(cut, ignore_merges)
    names = tuple(dict.fromkeys(row.pre(clean_up_spaces) for row in likely))
    if rows:
        settings["tokenizer.ggml.pre"] = names[0]
    tokens = {token_id: Token(text) for text, token_id in model["vocab"].items()}
    items = (*_byte_level_items(model, cut, rows, normal), *_dead_merges(merges))
    return TokenModel("gpt2", tokens, added, settings, pre_candidates=names, items=items)


def read_sentencepiece(
    tokenizer: Mapping[str, Any], added: tuple[AddedToken, ...], model_file: Path | None
) -> TokenModel:
    """``model_file``: the ``tokenizer.model`` beside it, the better source of scores, if there is one."""
    model = tokenizer["model"]
    normal = normalizer.read(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"))
    scores = _file_scores(model["vocab"], model_file) or merge_scores(read_merges(model))
    unknown = model.get("unk_token")
    tokens = {
        token_id: Token(text, _piece_type(text, unknown), scores.get(text, UNBUILT_SCORE if len(text) > 1 else 0.0))
        for text, token_id in model["vocab"].items()
    }
    settings: dict[str, Value] = {"tokenizer.ggml.add_space_prefix": normal.prefix == "before", **normal.settings()}
    items = tuple(_sentencepiece_items(model, normal))
    return TokenModel("llama", tokens, added, {"tokenizer.ggml.pre": "default", **settings}, items=items)


def read_merges(model: Mapping[str, Any]) -> list[Merge]:
    """The merges, first to last; both spellings of tokenizer.json (``"a b"`` and ``["a", "b"]``).

    Raises:
        BadCheckpoint: a merge is not a pair, or it builds a piece that is not in the vocabulary.
    """
    merges = [_merge(entry) for entry in model.get("merges", ())]
    vocab = model["vocab"]
    for left, right in merges:
        if left + right not in vocab:
            raise BadCheckpoint(f"tokenizer.json merges {left!r} and {right!r}, but {left + right!r} is no piece")
    return merges


def merge_scores(merges: Sequence[Merge]) -> dict[str, float]:
    """Minus the rank of the first merge that builds a piece: a score that orders merges as their ranks do."""
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    return scores


def _merge(entry: Any) -> Merge:
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if type(parts) is not list or len(parts) != 2:
        raise BadCheckpoint(f"tokenizer.json has a merge that is not a pair: {str(entry)[:200]}")
    return parts[0], parts[1]


def _dead_merges(merges: Sequence[Merge]) -> Iterator[Item]:
    """Byte-level text has no space character (it is ``Ġ``), so a merge with one can never happen; nor be written."""
    dead = sum(" " in left + right for left, right in merges)
    if dead:
        yield Item("merges", "warn", f"{dead} merges with a space character are left out: they can never apply")


def _byte_level_items(
    model: Mapping[str, Any], cut: Pretokenizer, rows: Sequence[Row], normal: Normalization
) -> Iterator[Item]:
    yield _pretokenizer_item(cut, rows, bool(model.get("ignore_merges")))
    yield from _common_items(model, normal)
    if normal.escapes_spaces or normal.prefix or normal.merges_spaces or normal.charsmap:
        yield Item("normalizer", "fail", "a byte-level tokenizer that rewrites spaces is not supported")
    if cut.add_prefix_space and cut.steps[:1] not in ((), (pretokenizer.BYTE_LEVEL,)):
        yield Item("pre-tokenizer", "fail", f"it puts a space before every word: {cut.describe()}")


def _pretokenizer_item(cut: Pretokenizer, rows: Sequence[Row], ignore_merges: bool) -> Item:
    what = f"{cut.describe()}; ignore_merges {str(ignore_merges).lower()}"
    if not rows:
        return Item(
            "pre-tokenizer", "warn", f"llama.cpp has none that is described like this: {what[:500]}",
            "the conversion tries all that it has on 4,000 texts, and is refused if none of them agrees",
        )  # fmt: skip
    if rows[0].approximate:
        return Item("pre-tokenizer", "warn", f"{rows[0].name}, which llama.cpp only approximates: {what[:500]}")
    return Item("pre-tokenizer", "ok", rows[0].name)


def _sentencepiece_items(model: Mapping[str, Any], normal: Normalization) -> Iterator[Item]:
    yield Item("tokenizer", "ok", "SentencePiece-style BPE")
    yield from _common_items(model, normal)
    missing = 256 - sum(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256))
    if missing or not model.get("byte_fallback"):
        yield Item("byte fallback", "fail", f"llama.cpp needs all 256 byte tokens; {missing} are missing")
    if not normal.escapes_spaces:
        yield Item("normalizer", "fail", f"spaces do not become {SPACE!r}, as llama.cpp would make them")
    if normal.charsmap or normal.merges_spaces:
        yield Item("normalizer", "fail", "llama.cpp does not rewrite characters or spaces for this kind of tokenizer")
    if model.get("ignore_merges"):
        yield Item("tokenizer", "fail", "ignore_merges is not supported with SentencePiece-style BPE")


def _common_items(model: Mapping[str, Any], normal: Normalization) -> Iterator[Item]:
    if normal.unknown:
        yield Item("normalizer", "fail", f"steps that are not supported: {'; '.join(normal.unknown)[:1_000]}")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            yield Item("tokenizer", "fail", f"BPE with {option} {model[option]!r} is not supported")


def _piece_type(text: str, unknown: str | None) -> TokenType:
    if text == unknown:
        return TokenType.UNKNOWN
    return TokenType.BYTE if BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL


def _file_scores(vocab: Mapping[str, int], model_file: Path | None) -> dict[str, float]:
    """Scores of a ``tokenizer.model`` that has the same pieces at the same ids; otherwise none."""
    if model_file is None:
        return {}
    pieces = spm.read(model_file).pieces
    same = len(pieces) <= len(vocab) and all(vocab.get(piece.text) == token_id for token_id, piece in enumerate(pieces))
    return {piece.text: piece.score for piece in pieces} if same else {}
