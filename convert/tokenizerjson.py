"""tokenizer.json as untrusted input: read within limits, and of the shape that everything behind relies on.

Format: the serialisation of the tokenizers library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BadCheckpoint
from .jsonfile import count_values, parse_object, read_bytes

FILE = "tokenizer.json"
MAX_BYTES = 48 << 20
MAX_VALUES = 2_200_000
"""Gemma's 262,144 pieces and 514,906 merges are 1.8 million."""
MAX_PARSED_BYTES = 176 << 20
ESCAPE_BYTES = 8
"""What an escaped character takes while it is parsed, beside the text."""
WIDE = re.compile(rb"[\xf0-\xf4]")
LONG_RUN = 512 << 10
MAX_ID = 1 << 24
MAX_TOKEN_BYTES = 16 << 10
MAX_SCORE = 1e30
MAX_PARTS = 100
PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def read(folder: Path) -> dict[str, Any]:
    """The content of the folder's tokenizer.json.

    Raises:
        BadCheckpoint: it is larger than our limits, no JSON, or not of the shape of a tokenizer.json.
    """
    path = folder / FILE
    data = read_bytes(path, MAX_BYTES)
    if problem := _swelling(data):
        raise BadCheckpoint(f"{path} {problem}")
    content = parse_object(data, path)
    check(content, path)
    return content


def document(content: Mapping[str, Any]) -> str:
    """The text of a tokenizer.json that neither cuts texts nor fills them up."""
    plain = {**content, "truncation": None, "padding": None}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _swelling(data: bytes) -> str:
    """Why the text would take too much memory once parsed: too many values, too wide as text (one emoji makes each
    character four bytes), or a string that is as good as the whole file."""
    if (values := count_values(data)) > MAX_VALUES:
        return f"has {values:,} values, and at most {MAX_VALUES:,} are allowed"
    width = 4 if WIDE.search(data) else 2
    if len(data) * (1 + width) + data.count(b"\\") * ESCAPE_BYTES > MAX_PARSED_BYTES:
        return f"has {len(data):,} bytes, too many for what characters it has"
    if any(data.find(b'"', start, start + LONG_RUN) < 0 for start in range(0, len(data) - LONG_RUN, LONG_RUN)):
        return f"has a text or white space of more than {LONG_RUN:,} bytes"
    return ""


def check(content: Mapping[str, Any], path: Path) -> None:
    """Raises :class:`BadCheckpoint` where tokens, merges or parts are not what they must be."""
    for problem in _problems(content):
        raise BadCheckpoint(f"{path}: {problem}", hint="the file is damaged or was changed by hand; download it again")


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    model = content.get("model")
    if not isinstance(model, dict):
        yield "it has no model"
        return
    for name in PARTS:
        yield from _part_problems(name, content.get(name))
    yield from _added_problems(content.get("added_tokens"))
    yield from _vocab_problems(model)
    yield from _option_problems(model)


def _part_problems(name: str, part: Any) -> Iterator[str]:
    """A part has a type, a sequence has parts, and there are not too many of them."""
    waiting, seen = [part] if part is not None else [], 0
    while waiting:
        current, seen = waiting.pop(), seen + 1
        if not isinstance(current, dict) or not isinstance(current.get("type"), str):
            yield f"a part of the {name} has no type: {str(current)[:80]}"
            return
        children = [
            current[key] for key in ("normalizers", "pretokenizers", "processors", "decoders") if key in current
        ]
        if not all(isinstance(value, list) for value in children):
            yield f"a sequence in the {name} has no list of parts"
            return
        waiting += [child for value in children for child in value[: MAX_PARTS + 1]]
        if len(waiting) + seen > MAX_PARTS:
            yield f"the {name} has more than {MAX_PARTS} parts"
            return


def _added_problems(added: Any) -> Iterator[str]:
    if not isinstance(added, list | None):
        yield "added_tokens is no list"
        return
    seen: set[int] = set()
    for entry in added or ():
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_text(entry.get("content")):
            yield f"an added token has no id or no text: {str(entry)[:200]}"
            return
        if not entry["content"]:
            yield f"the added token {entry['id']} is empty"
            return
        if entry["id"] in seen:
            yield f"two added tokens have the id {entry['id']}"
            return
        seen.add(entry["id"])


def _vocab_problems(model: Mapping[str, Any]) -> Iterator[str]:
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        yield from _table_problems(vocab)
    elif isinstance(vocab, list) and model.get("type") == "Unigram":
        yield from _scored_problems(vocab)
    else:
        yield f"the vocabulary is a {type(vocab).__name__}"


def _table_problems(vocab: Mapping[str, Any]) -> Iterator[str]:
    """A text for each id. Two texts of one id would silently lose one of them."""
    wrong = next(((text, token_id) for text, token_id in vocab.items() if not _is_id(token_id)), None)
    if wrong is not None:
        yield f"the piece {wrong[0][:80]!r} has the id {str(wrong[1])[:80]}"
    elif len(set(vocab.values())) < len(vocab):
        yield "two pieces have one id"
    yield from (f"the piece {text[:80]!r} is no text" for text in vocab if not _is_text(text))


def _scored_problems(vocab: list[Any]) -> Iterator[str]:
    for entry in vocab:
        if type(entry) is not list or len(entry) != 2 or not _is_text(entry[0]) or not _is_score(entry[1]):
            yield f"a piece is not a text with a score: {str(entry)[:200]}"
            return


def _option_problems(model: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(model.get("merges"), list | None):
        yield "the merges are no list"
    unknown = model.get("unk_id")
    if unknown is not None and not (_is_id(unknown) and unknown < len(model["vocab"])):
        yield f"the unknown piece is {str(unknown)[:80]}"
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(name), str | None):
            yield f"{name} is no text"


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_ID


def _is_score(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_SCORE


def _is_text(value: Any) -> bool:
    """Whether UTF-8 can carry it: JSON allows half a character."""
    if not isinstance(value, str) or len(value) > MAX_TOKEN_BYTES:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
