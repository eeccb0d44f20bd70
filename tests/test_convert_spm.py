"""The reader of sentencepiece models against sentencepiece itself, and against bytes of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingle.convert import spm
from ingle.convert.errors import BadCheckpoint
from ingle.convert.vocabulary import TokenType
from sentencepiece import SentencePieceProcessor


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bpe", {"byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}),
        ("unigram", {"user_defined_symbols": ["<mask>"], "control_symbols": ["<ctl>"], "pad_id": 3}),
    ],
)
def test_pieces_and_settings_are_those_of_sentencepiece(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    file = trained.sentencepiece_model(tmp_path, kind, **options) / "tokenizer.model"
    ours, theirs = spm.read(file), SentencePieceProcessor(model_file=str(file))
    assert ours.algorithm == kind
    assert len(ours.pieces) == theirs.vocab_size()
    checks = {
        TokenType.UNKNOWN: theirs.is_unknown, TokenType.CONTROL: theirs.is_control,
        TokenType.UNUSED: theirs.is_unused, TokenType.BYTE: theirs.is_byte,
    }  # fmt: skip
    for index, piece in enumerate(ours.pieces):
        assert (piece.text, piece.score) == (theirs.id_to_piece(index), theirs.get_score(index))
        assert [kind for kind, check in checks.items() if check(index)] == [
            kind for kind in checks if kind is piece.type
        ]
    assert ours.byte_fallback == bool(options.get("byte_fallback"))
    assert ours.remove_extra_spaces == options.get("remove_extra_whitespaces", True)
    assert bool(ours.charsmap) == ("normalization_rule_name" not in options)
    assert ours.special_ids.get("pad", -1) == theirs.pad_id()
    assert (ours.add_dummy_prefix, ours.escape_spaces, ours.space_is_suffix) == (True, True, False)


@given(data=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_model_or_a_clear_error(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(data)
    try:
        assert spm.read(file).pieces
    except BadCheckpoint as error:
        assert "is not a sentencepiece model" in error.message


@given(cut=st.integers(min_value=0, max_value=400), flip=st.integers(min_value=0, max_value=2_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_damaged_model_is_a_model_or_a_clear_error(
    cut: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    whole = folder / "tokenizer.model"
    if not whole.exists():
        trained.sentencepiece_model(folder, "bpe")
    data = bytearray(whole.read_bytes())
    data[flip] ^= 0x55
    broken = folder / "broken.model"
    broken.write_bytes(data[: len(data) - cut])
    try:
        assert spm.read(broken).pieces
    except BadCheckpoint as error:
        assert "is not a sentencepiece model" in error.message
