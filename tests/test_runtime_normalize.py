"""What happens to a text before llama.cpp sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingle.convert.gguf import Value
from ingle.runtime.normalize import prepare

ADDED = ["<s>", "<mask>", "<mask>x"]


def metadata(**settings: Value) -> dict[str, Value]:
    kept = {f"ingle.tokenizer.{name}": value for name, value in settings.items()}
    return {"tokenizer.ggml.model": "llama", "ingle.tokenizer.added": ADDED, **kept}


@given(st.text())
def test_a_file_without_settings_leaves_text_alone(text: str) -> None:
    assert prepare(text, {"tokenizer.ggml.model": "gpt2", "general.name": "x"}) is text


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"normalizer": "NFC"}, "e\u0301", "é"),
        ({"normalizer": "NFC"}, "<s>\u0338a", "<s>\u0338a"),
        ({"normalizer": "NFKC"}, "ﬁ<s>①", "fi<s>1"),
        ({"space_prefix": "first"}, "a<s>b", " a<s>b"),
        ({"space_prefix": "first"}, "<s>b", "<s>b"),
        ({"space_prefix": "always"}, "a<s>b<s> c", " a<s> b<s> c"),
        ({"space_prefix": "always"}, "", ""),
        ({"space_prefix": "always"}, " a", " a"),
        ({"space_prefix": "always"}, "▁a", "▁a"),
        ({"space_prefix": "always"}, "\na", " \na"),
        ({"lstrip": ["<mask>"]}, "a \n<mask> b", "a<mask> b"),
        ({"rstrip": ["<mask>"]}, "a <mask> \u3000b", "a <mask>b"),
        ({"rstrip": ["<mask>"]}, "<mask>\x1f", "<mask>\x1f"),
        ({"rstrip": ["<mask>"]}, "<mask>x y", "<mask>x y"),
        ({"rstrip": ["<mask>"]}, "<s> a", "<s> a"),
        ({"white_space": True}, "a\x85b\n<s>\t", "a b <s> "),
    ],
)
def test_text_between_added_tokens_is_prepared(settings: dict[str, Value], text: str, expected: str) -> None:
    assert prepare(text, metadata(**settings)) == expected


def test_a_byte_level_model_knows_only_the_space_itself() -> None:
    settings = metadata(space_prefix="always") | {"tokenizer.ggml.model": "gpt2"}
    assert prepare("▁a", settings) == " ▁a"


def test_without_special_tokens_all_is_plain_text() -> None:
    settings = metadata(rstrip=["<mask>"], space_prefix="always")
    assert prepare("<mask> a<s>b", settings, parse_special=False) == " <mask> a<s>b"
