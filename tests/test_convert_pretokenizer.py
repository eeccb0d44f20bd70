"""The table of pre-tokenizers against the expressions of llama.cpp, and against tokenizer.json spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ingle.convert.pretokenizer import BYTE_LEVEL, CONTRACTIONS, ROWS, canonical, find, flatten

# Extracted from src/llama-vocab.cpp of the llama.cpp tree in llama-cpp-python 0.3.36, by name.
LLAMA_CPP = json.loads((Path(__file__).parent / "data" / "llama_cpp_pretokenizers.json").read_text(encoding="utf-8"))
NAMES = [(row, name) for row in ROWS for name in (row.name, row.cleaning, row.keeping) if name]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K_POSSESSIVE = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_LITERAL = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}"
    "| ?[^\\s\\p{L}\\p{N}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)


def split(expression: str, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": behavior, "invert": invert}


def byte_level(use_regex: bool, add_prefix_space: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


@pytest.mark.parametrize(("row", "name"), NAMES, ids=[f"{name}-{len(row.steps)}" for row, name in NAMES])
def test_each_row_is_what_llama_cpp_does_under_that_name(row: Any, name: str) -> None:
    theirs = LLAMA_CPP[name]
    assert theirs["byte_level"]
    assert theirs["ignore_merges"] == row.ignore_merges
    # What GPT-2's expression leaves over is white space; there llama.cpp's engine does the same without a last branch.
    gpt2 = BYTE_LEVEL.removesuffix(r"|\s+")
    steps = [canonical(BYTE_LEVEL if step == gpt2 else step) for step in theirs["steps"]]
    assert row.approximate or steps == [canonical(step) for step in row.steps]
    assert theirs["cleans_spaces"] or name != row.cleaning


def test_names_of_a_row_differ_in_nothing_but_spaces() -> None:
    for row in ROWS:
        behaviours = {json.dumps(LLAMA_CPP[name]["steps"]) for name in (row.name, row.cleaning, row.keeping) if name}
        assert len(behaviours) == 1, row.name


@pytest.mark.parametrize(
    ("pre_tokenizer", "ignore_merges", "name"),
    [
        (byte_level(True), False, "gpt-2"),
        (sequence({"type": "Digits", "individual_digits": True}, byte_level(True)), False, "starcoder"),
        (sequence(split(LLAMA3), byte_level(False)), True, "llama-bpe"),
        (sequence(split(LLAMA3), byte_level(False)), False, "dbrx"),
        (sequence(split(LLAMA3, "Removed", True), byte_level(False)), False, "dbrx"),
        (sequence(split(CL100K_POSSESSIVE), byte_level(False)), False, "dbrx"),
        (sequence(split(QWEN2_LITERAL), byte_level(False)), False, "qwen2"),
        (sequence(sequence(split(QWEN2_LITERAL)), byte_level(False)), False, "qwen2"),
        (
            sequence(
                split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                {"type": "Digits", "individual_digits": True}, byte_level(False),
            ),
            False,
            "deepseek-coder",
        ),
    ],
)  # fmt: skip
def test_structure_finds_the_name(pre_tokenizer: dict[str, Any], ignore_merges: bool, name: str) -> None:
    cut = flatten(pre_tokenizer)
    assert cut.byte_level
    assert [row.name for row in find(cut, ignore_merges)] == [name]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        byte_level(False),
        sequence(split(LLAMA3, "MergedWithPrevious"), byte_level(False)),
        sequence(split(LLAMA3, "Removed"), byte_level(False)),
        sequence(split(LLAMA3 + "|x"), byte_level(False)),
        sequence(byte_level(True), {"type": "Digits", "individual_digits": True}),
        sequence({"type": "Digits", "individual_digits": False}, byte_level(True)),
        sequence({"type": "UnicodeScripts"}, byte_level(True)),
        None,
    ],
)
def test_another_structure_finds_nothing(pre_tokenizer: dict[str, Any] | None) -> None:
    assert find(flatten(pre_tokenizer), ignore_merges=False) == ()


def test_an_unknown_step_is_shown_whole() -> None:
    cut = flatten(sequence({"type": "UnicodeScripts", "x": 1}, byte_level(True)))
    assert cut.describe() == f"UnicodeScripts {{'x': 1}} ; {BYTE_LEVEL}"


def test_a_name_follows_the_wish_about_spaces() -> None:
    rows = {row.name: row for row in ROWS}
    assert [rows["qwen2"].pre(wish) for wish in (None, True, False)] == ["qwen2", "stablelm2", "qwen2"]
    assert [rows["starcoder"].pre(wish) for wish in (None, True, False)] == ["starcoder", "starcoder", "smollm"]
    assert rows["gpt-2"].pre(False) == "gpt-2"


def test_possessive_quantifiers_inside_a_class_stay() -> None:
    assert canonical(r"[*+,]\p{L}++|'(?i:[sdmt]|ll|ve|re)|\+{1}") == rf"[*+,]\p{{L}}+|{CONTRACTIONS}|\+"
