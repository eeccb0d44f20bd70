"""What a model is measured on: a text in chunks of equal length, or prompts and chats, each a passage of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import InputError
from ..chat.conversation import Conversation
from ..llama.model import NativeModel

Tokens = NDArray[np.int32]

MOST_BYTES = 1 << 30
SHORTEST = 2
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Passage:
    """tokens: shape (length,), as the model reads them. From position ``first`` on, each next token is predicted."""

    tokens: Tokens
    first: int

    @property
    def predictions(self) -> int:
        """Tokens that are scored: all behind ``first``."""
        return len(self.tokens) - 1 - self.first


@dataclass(frozen=True, slots=True)
class Material:
    """Passages of a file. left_over: tokens behind the last whole chunk; sha256: of the file."""

    passages: tuple[Passage, ...]
    sha256: str
    left_over: int = 0

    @property
    def predictions(self) -> int:
        return sum(passage.predictions for passage in self.passages)

    @property
    def tokens(self) -> int:
        return sum(len(passage.tokens) for passage in self.passages)

    @property
    def longest(self) -> int:
        return max(len(passage.tokens) for passage in self.passages)


def read(path: Path, model: NativeModel, length: int | None = None, most: int | None = None) -> Material:
    """The passages of a file, tokenized by ``model``.

    A ``.jsonl`` file has a chat (``{"messages": [...]}``), a prompt (``{"prompt": "..."}``) or a text
    (``{"text": "..."}``, or just a string) in each line; every passage is scored from its second token on, and one
    longer than ``length`` (by default what the model was trained for) is refused. Any other file is a text, read in
    chunks of ``length`` (512) tokens of which the second half is scored and the first is the tokenizer's BOS where it
    has one: the chunks of llama-perplexity.

    most: use only the first so many passages.

    Raises:
        InputError: the file is missing, empty, too short, not UTF-8, or a line is not of these shapes.
    """
    trained = model.context_trained
    if length is not None and not SHORTEST <= length <= trained:
        raise InputError(f"a chunk of {length} tokens: this model reads {SHORTEST} to {trained}", param="ctx")
    data = contents(path)
    checksum = hashlib.sha256(data).hexdigest()
    text = _decoded(path, data)
    if path.suffix.lower() == ".jsonl":
        records = tuple(_records(path, text, model, length or trained))
        if not records:
            raise InputError(f"{path} has no records")
        return Material(records[:most], checksum)
    return _chunked(path, text, checksum, model, length or min(CHUNK, trained), most)


def contents(path: Path) -> bytes:
    """The bytes of a file. Raises :class:`InputError` where it cannot be read."""
    try:
        if not path.is_file():
            raise InputError(f"{path} is not a file", hint="name a text file, or a .jsonl file of prompts or chats")
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes, and at most {MOST_BYTES:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {error.start:,} is {data[error.start]:#04x}") from error


def _chunked(path: Path, text: str, checksum: str, model: NativeModel, length: int, most: int | None) -> Material:
    tokens = np.array(model.vocab.tokenize(text.removesuffix("\n")), np.int32)
    whole = len(tokens) // length
    if not whole:
        raise InputError(
            f"{path} has {len(tokens):,} tokens, fewer than one chunk of {length:,}",
            hint="a smaller --ctx, or more text",
        )
    chunks = tokens[: whole * length].reshape(whole, length)[:most].copy()
    bos = model.vocab.bos
    if bos is not None:
        chunks[:, 0] = bos
    left_over = 0 if most is not None and most < whole else len(tokens) - whole * length
    return Material(tuple(Passage(chunk, length // 2) for chunk in chunks), checksum, left_over)


def _records(path: Path, text: str, model: NativeModel, longest: int) -> Iterator[Passage]:
    conversation = Conversation.of(model.metadata)
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        tokens = _record_tokens(f"{path}:{number}", line, model, conversation)
        if not SHORTEST <= len(tokens) <= longest:
            raise InputError(
                f"{path}:{number} has {len(tokens):,} tokens, where {SHORTEST} to {longest:,} can be measured",
                hint="split it, or raise --ctx up to what the model was trained for; nothing is cut silently",
            )
        yield Passage(np.array(tokens, np.int32), 0)


def _record_tokens(place: str, line: str, model: NativeModel, conversation: Conversation) -> Sequence[int]:
    try:
        record: Any = json.loads(line)
    except ValueError as error:
        raise InputError(f"{place} is not JSON: {error}") from error
    if isinstance(record, dict) and isinstance(record.get("messages"), list):
        rendered = conversation.render(record["messages"], add_generation_prompt=False)
        return model.vocab.tokenize(rendered, add_special=False, parse_special=True)
    found = record if isinstance(record, str) else _field(record)
    if not isinstance(found, str):
        raise InputError(
            f'{place} is neither a chat ({{"messages": [...]}}) nor {{"prompt": "..."}} nor {{"text": "..."}}'
        )
    return model.vocab.tokenize(found, parse_special=True)


def _field(record: Any) -> object:
    return record.get("text", record.get("prompt")) if isinstance(record, dict) else None
