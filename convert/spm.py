"""Reader of sentencepiece's ``tokenizer.model``: the few protobuf fields that matter to a GGUF.

Format: sentencepiece_model.proto of the sentencepiece project; wire format: the protobuf encoding guide.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .errors import BadCheckpoint
from .vocabulary import Token, TokenType

Field = tuple[int, int | bytes]
"""A protobuf field: its number and its value; fixed-width values stay bytes."""

ALGORITHMS: dict[int, Literal["unigram", "bpe", "word", "char"]] = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
DEFAULT_SPECIAL_IDS = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What ``tokenizer.model`` says. ``special_ids`` holds unk, bos, eos and pad where the model has them."""

    algorithm: Literal["unigram", "bpe", "word", "char"]
    pieces: tuple[Token, ...]
    special_ids: dict[str, int]
    byte_fallback: bool
    space_is_suffix: bool
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_spaces: bool
    escape_spaces: bool


def read(path: Path) -> SentencePieceModel:
    """Raises :class:`BadCheckpoint` when the file is not a sentencepiece model."""
    try:
        return _parse(path.read_bytes())
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise BadCheckpoint(f"{path} is not a sentencepiece model: {error}") from error


def fairseq(model: SentencePieceModel) -> SentencePieceModel:
    """The same with the ids that XLM-RoBERTa gives its pieces: four special tokens first, and a mask behind all."""
    first = (
        Token("<s>", TokenType.CONTROL),
        Token("<pad>", TokenType.CONTROL),
        Token("</s>", TokenType.CONTROL),
        Token("<unk>", TokenType.UNKNOWN),
    )
    pieces = (*first, *model.pieces[3:], Token("<mask>", TokenType.CONTROL))
    return replace(model, pieces=pieces, special_ids={"bos": 0, "pad": 1, "eos": 2, "unk": 3, "mask": len(pieces) - 1})


def fairseq_id(token_id: int) -> int:
    """What becomes of an ordinary id, or of that of the unknown piece."""
    return token_id + 1 if token_id else 3


def _parse(data: bytes) -> SentencePieceModel:
    model = list(_fields(data))
    trainer, normalizer = _message(model, 2), _message(model, 3)
    special = {name: _int(trainer, number, default) for name, (number, default) in DEFAULT_SPECIAL_IDS.items()}
    pieces = tuple(_piece(dict(_fields(value))) for number, value in model if number == 1 and isinstance(value, bytes))
    if not pieces:
        raise ValueError("it has no pieces")
    return SentencePieceModel(
        algorithm=ALGORITHMS[_int(trainer, 3, 1)],
        pieces=pieces,
        special_ids={name: token_id for name, token_id in special.items() if 0 <= token_id < len(pieces)},
        byte_fallback=bool(_int(trainer, 35, 0)),
        space_is_suffix=bool(_int(trainer, 24, 0)),
        charsmap=_bytes(normalizer, 2),
        add_dummy_prefix=bool(_int(normalizer, 3, 1)),
        remove_extra_spaces=bool(_int(normalizer, 4, 1)),
        escape_spaces=bool(_int(normalizer, 5, 1)),
    )


def _piece(fields: dict[int, int | bytes]) -> Token:
    (score,) = struct.unpack("<f", _bytes(fields, 2) or bytes(4))
    return Token(_bytes(fields, 1).decode("utf-8"), TokenType(_int(fields, 3, TokenType.NORMAL)), score)


def _message(fields: list[Field], number: int) -> dict[int, int | bytes]:
    return {key: value for field in fields if field[0] == number for key, value in _fields(_as_bytes(field[1]))}


def _fields(data: bytes) -> Iterator[Field]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire_type)
        if wire_type == 2:
            size, position = _varint(data, position)
        if size is None or position + size > len(data):
            raise ValueError(f"broken field at byte {position}")
        yield number, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
    raise ValueError(f"broken number at byte {position}")


def _int(fields: dict[int, int | bytes], number: int, default: int) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(fields: dict[int, int | bytes], number: int) -> bytes:
    return _as_bytes(fields.get(number, b""))


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes were expected")
    return value
