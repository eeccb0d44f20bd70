r"""How a byte-level tokenizer cuts text into words, and what llama.cpp calls that way of cutting.

llama.cpp knows some ninety names for thirty-odd behaviours (``tokenizer.ggml.pre``). A checkpoint does not say which
one it is; its ``tokenizer.json`` says exactly what it does. So the description is flattened to a list of regular
expressions, applied one after the other, each cutting out its matches, and that list is looked up here. A tokenizer
that was trained anew, or got more tokens, has the same list as its ancestor and is found all the same.

The table holds the expressions as tokenizer.json files write them; a test compares every row with the expressions of
llama.cpp. Rows marked ``approximate`` are those where llama.cpp itself uses a simpler expression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The expression that the ``ByteLevel`` pre-tokenizer has built in: GPT-2's."""
LONGEST = 4_096
"""Characters of an expression that is looked at; the longest of the table has 274."""
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
"""Runs of what the ``Punctuation`` pre-tokenizer (behavior Contiguous) takes for punctuation."""

_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3 = rf"{CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}"
QWEN2 = rf"{CONTRACTIONS}|{_WORD}|\p{{N}}|{_SYMBOLS}|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAPITALISED, _CAPITALS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_O200K = rf"{_CAPITALISED}{CONTRACTIONS}?|{_CAPITALS}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{_PATHS}|{_SPACES}"
_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_ASCII_SYMBOL_WORD = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
_MARKED_WORD = r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
# llama.cpp has the same expressions, but its engine sees other matches beside U+00A0 and U+3000.
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{CASED_LETTERS}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    "[一-龥ࠀ-一가-퟿]+",
)
_CONTRACTION_SPELLINGS = (
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
    "'(?i:[sdmt]|ll|ve|re)",
    "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
)
_POSSESSIVE = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|([?*+]|\{\d+(?:,\d*)?\})\+")


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour of llama.cpp.

    name: its ``tokenizer.ggml.pre``. steps: the expressions, in order. cleaning, keeping: other names of the same
    behaviour, for checkpoints that ask for spaces before punctuation to go, or to stay, when text is decoded.
    ignore_merges: a word that is a token as it stands is taken whole, whatever the merges would build.
    approximate: llama.cpp cuts some text differently from these expressions; only the proof tells whether it matters.
    """

    name: str
    steps: tuple[str, ...]
    ignore_merges: bool = False
    cleaning: str = ""
    keeping: str = ""
    approximate: bool = False

    def pre(self, clean_up_spaces: bool | None) -> str:
        """The name to write; ``clean_up_spaces`` is None where the checkpoint does not say."""
        return {True: self.cleaning, False: self.keeping, None: ""}[clean_up_spaces] or self.name


ROWS: tuple[Row, ...] = (
    Row("gpt-2", (BYTE_LEVEL,)),
    Row("starcoder", (r"\p{N}", BYTE_LEVEL), keeping="smollm"),
    Row("llama-bpe", (_LLAMA3,), ignore_merges=True),
    Row("dbrx", (_LLAMA3,)),
    Row("qwen2", (QWEN2,), cleaning="stablelm2"),
    Row(
        "qwen35",
        (
            rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
        ),
    ),
    Row("ufakzeka", (rf"{_WORD}|\p{{N}}|{_SYMBOLS}|{_SPACES}",)),
    Row("bailingmoe", (rf"{CONTRACTIONS}|{_WORD}|\p{{N}}|{_SYMBOLS}|\s*[\r\n]|\s+(?!\S)|\s+",)),
    Row("seed-coder", (rf"{CONTRACTIONS}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",)),
    Row(
        "exaone-moe",
        (
            rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ),
    ),
    Row("laguna", (r"[^\n]+|[\n]+", QWEN2)),
    Row(
        "jais-2",
        (
            rf"{CONTRACTIONS}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}|\s*[\r\n]+|\s{{512}}(?!\S)|\s{{256}}(?!\S)"
            r"|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
        ),
    ),
    Row(
        "minicpm5",
        (r"\p{N}{1,3}", rf"{CONTRACTIONS}|{_WORD}|\p{{N}}+|{_SYMBOLS}|{_SPACES}"),
        ignore_merges=True,
    ),
    Row("gpt-4o", (_O200K,), approximate=True),
    Row("granite-embed-multi-97m", (_O200K,), ignore_merges=True, approximate=True),
    Row("tekken", (rf"{_CAPITALISED}|{_CAPITALS}|\p{{N}}|{_PATHS}|{_SPACES}",), ignore_merges=True, approximate=True),
    Row("tiny_aya", (r"\d{1,3}(?=(?:\d{3})*\b)", _O200K)),
    Row(
        "youtu",
        (
            f"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|{_CJK}",
            rf"{_CAPITALISED}{CONTRACTIONS}?|{_CAPITALS}{CONTRACTIONS}?|\p{{N}}|{_PATHS}|{_SPACES}",
        ),
        ignore_merges=True,
    ),
    Row("deepseek-llm", (*_DEEPSEEK_LLM, r"\p{N}+"), approximate=True),
    # As its own tokenizer.json has it: no piece of it has two digits, so both cut alike.
    Row("deepseek-llm", (*_DEEPSEEK_LLM, r"\p{N}"), approximate=True),
    Row("deepseek-coder", (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    Row(
        "deepseek-v3",
        (r"\p{N}{1,3}", _CJK, rf"{_ASCII_SYMBOL_WORD}|{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"),
    ),
    Row(
        "spark2_5",
        (
            r"\p{N}{1,3}",
            _CJK,
            rf"{_ASCII_SYMBOL_WORD}|{_MARKED_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
            r"\p{N}",
        ),
    ),
    Row("falcon", (PUNCTUATION, BYTE_LEVEL, "[0-9][0-9][0-9]")),
    Row("default", (PUNCTUATION, BYTE_LEVEL, r"\p{N}+", "[0-9][0-9][0-9]"), approximate=True),
    Row("falcon", (PUNCTUATION, BYTE_LEVEL, r"\p{N}+", "[0-9][0-9][0-9]"), approximate=True),
    Row("bloom", (" ?[^(\\s|[.,!?…。，、।۔،])]+",), keeping="poro-chat", approximate=True),
    Row("viking", (" ?[^(\\s|[.,!?…。，、।۔،])]+", r"\p{N}"), approximate=True),
    Row("superbpe", (r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    Row(
        "chameleon",
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            BYTE_LEVEL,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Pretokenizer:
    """The pre_tokenizer of a tokenizer.json, flattened. An unknown step stands as ``Type {options}``."""

    steps: tuple[str, ...]
    byte_level: bool
    add_prefix_space: bool

    def describe(self) -> str:
        return " ; ".join(self.steps)[:LONGEST] if self.steps else "(no steps)"


def flatten(pre_tokenizer: Mapping[str, Any] | None) -> Pretokenizer:
    """Read the ``pre_tokenizer`` value of a tokenizer.json."""
    parts = tuple(_parts(pre_tokenizer))
    byte_levels = [part for part in parts if part.get("type") == "ByteLevel"]
    steps = tuple(step for part in parts if (step := _step(part)) is not None)
    prefix = any(part.get("add_prefix_space", True) for part in byte_levels)
    return Pretokenizer(steps, bool(byte_levels), prefix)


def find(pretokenizer: Pretokenizer, ignore_merges: bool) -> tuple[Row, ...]:
    """The rows that behave like ``pretokenizer``, likeliest first; empty when llama.cpp has none.

    Where there are several, the proof of a conversion tells which one is right.
    """
    steps = tuple(canonical(step) for step in pretokenizer.steps)
    return tuple(row for row in ROWS if row.ignore_merges == ignore_merges and _canonical_steps(row) == steps)


def guesses(pretokenizer: Pretokenizer, ignore_merges: bool) -> tuple[Row, ...]:
    """All rows, to be tried where none is described like the tokenizer: those with its ``ignore_merges`` first, then
    those that share most steps with it."""
    steps = {canonical(step) for step in pretokenizer.steps}
    return tuple(
        sorted(ROWS, key=lambda row: (row.ignore_merges != ignore_merges, -len(steps & set(_canonical_steps(row)))))
    )


def canonical(expression: str) -> str:
    """One spelling for expressions that match the same text.

    Literal control characters become escapes, ``{1}`` goes, the three usual spellings of the English contractions
    become one. Possessive quantifiers become greedy: in these expressions what follows one never matches a character
    it has taken, so giving characters back would not help the match.
    """
    text = expression.replace("\r", r"\r").replace("\n", r"\n").replace("\t", r"\t").replace("{1}", "")
    for spelling in _CONTRACTION_SPELLINGS:
        text = text.replace(spelling, CONTRACTIONS)
    return _POSSESSIVE.sub(lambda match: match[1] or match[0], text)


def _canonical_steps(row: Row) -> tuple[str, ...]:
    return tuple(canonical(step) for step in row.steps)


def _parts(node: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if node is None:
        return
    if node.get("type") == "Sequence":
        for child in node.get("pretokenizers", ()):
            yield from _parts(child)
    else:
        yield node


def _step(part: Mapping[str, Any]) -> str | None:
    """The expression a step cuts by; None for a step that does not cut."""
    match part:
        case {"type": "ByteLevel"}:
            return BYTE_LEVEL if part.get("use_regex", True) else None
        case {"type": "Digits"}:
            return r"\p{N}" if part.get("individual_digits") else r"\p{N}+"
        case {"type": "Punctuation", "behavior": "Contiguous"}:
            return PUNCTUATION
        case {"type": "Split", "pattern": {"Regex": str(expression)}} if _isolates(part) and len(expression) <= LONGEST:
            return expression
        case {"type": "Split", "pattern": {"String": str(text)}} if _isolates(part) and len(text) <= LONGEST:
            return re.escape(text)
    return f"{part.get('type')} { {key: value for key, value in part.items() if key != 'type'} }"[:LONGEST]


def _isolates(split: Mapping[str, Any]) -> bool:
    """Matches become words of their own. ``Removed`` + ``invert`` keeps only matches: the same for expressions that
    match all text, as those of the table do."""
    return (split.get("behavior"), bool(split.get("invert"))) in (("Isolated", False), ("Removed", True))
