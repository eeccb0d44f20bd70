"""The vocabularies that llama.cpp ships for its own tests (``models/ggml-vocab-*.gguf``), as checkpoints again.

Each GGUF vocabulary is written as the tokenizer.json that its model had: what llama.cpp knows by a name is spelled out
as normalizer, steps and post-processor, as the models' own files do. Then it goes the way of any checkpoint: read,
settled by trial, compared on the texts of the proof. Where llama.cpp has fixtures (``.inp``, ``.out``) for it, both the
tokenizers library and ingle must give their ids.

    python -m bench.vocabularies PATH/TO/llama.cpp/models [NAME ...]      # prints a table in Markdown
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ingle.convert import gguf, tokenizer
from ingle.convert.gguf import Value
from ingle.convert.pretokenizer import CASED_LETTERS
from ingle.convert.vocabulary import TokenType
from ingle.runtime import comparison
from ingle.runtime.settle import MODEL, settle
from ingle.runtime.truth import truth

SEPARATOR = "\n__ggml_vocab_test__\n"
Content = dict[str, Any]

BYTE_LEVEL: Content = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = {**BYTE_LEVEL, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(expression: str) -> Content:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


HAN = split("[一-龥ࠀ-一가-퟿]+")
STEPS: Mapping[str, Sequence[Content]] = {
    "aquila": [BYTE_LEVEL],
    "command-r": [DIGITS, BYTE_LEVEL],
    "deepseek-coder": [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), HAN, DIGITS, BYTES_ONLY],
    "deepseek-llm": [
        split("[\r\n]"), split(rf"\s?[{CASED_LETTERS}]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
        HAN, DIGITS, BYTES_ONLY,
    ],
    "falcon": [{"type": "Punctuation", "behavior": "Contiguous"}, BYTE_LEVEL, split("[0-9][0-9][0-9]")],
    "gpt-2": [BYTE_LEVEL],
    "gpt-neox": [BYTE_LEVEL],
    "llama-bpe": [split(LLAMA3), BYTES_ONLY],
    "mpt": [BYTE_LEVEL],
    "qwen2": [split(LLAMA3.replace("{1,3}", "")), BYTES_ONLY],
    "qwen35": [split(QWEN35), BYTES_ONLY],
    "refact": [DIGITS, BYTE_LEVEL],
    "starcoder": [DIGITS, BYTE_LEVEL],
}  # fmt: skip
"""How the models' own tokenizer.json files cut text, by the name of the vocabulary."""
NORMALIZED = ("command-r", "gpt-neox", "mpt", "qwen2")
"""Those whose own files have NFC; Qwen 3.5's fixtures show that it has none."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was found about one vocabulary. fixtures: how many of llama.cpp's the tokenizers library gives, how many
    ingle gives, how many there are."""

    name: str
    kind: str
    pre: str
    fixtures: tuple[int, int, int]
    native: int
    compared: int
    differing: int
    verdict: str
    seconds: float


def tokenizer_json(name: str, metadata: Mapping[str, Value]) -> Content:
    """The tokenizer.json that a vocabulary stands for."""
    tokens, types = _tokens(metadata)
    kind = str(metadata["tokenizer.ggml.model"])
    made = {"gpt2": _byte_level, "llama": _sentencepiece, "gemma4": _gemma, "bert": _wordpiece, "t5": _unigram}
    content = made[kind](name, metadata, tokens, types)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": index, "content": text, "special": types[index] != TokenType.USER_DEFINED, **flags}
        for index, text in enumerate(tokens)
        if types[index] in (TokenType.CONTROL, TokenType.USER_DEFINED)
        or (types[index] == TokenType.UNKNOWN and index == metadata.get("tokenizer.ggml.unknown_token_id", 0))
    ]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "decoder": None, **content}


def _tokens(metadata: Mapping[str, Value]) -> tuple[list[str], list[int]]:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, np.ndarray)
    return [str(token) for token in tokens], [int(kind) for kind in types]


def _merges(metadata: Mapping[str, Value]) -> list[list[str]]:
    merges = metadata["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    cuts = ((str(merge), str(merge).index(" ", 1)) for merge in merges)
    return [[merge[:cut], merge[cut + 1 :]] for merge, cut in cuts]


def _byte_level(name: str, metadata: Mapping[str, Value], tokens: Sequence[str], types: Sequence[int]) -> Content:
    vocab = {text: index for index, text in enumerate(tokens)}
    model = {"type": "BPE", "ignore_merges": name == "llama-bpe", "vocab": vocab, "merges": _merges(metadata)}
    cut = {"type": "Sequence", "pretokenizers": list(STEPS[name])}
    before = [metadata["tokenizer.ggml.bos_token_id"]] if metadata.get("tokenizer.ggml.add_bos_token") else []
    return {
        "normalizer": NFC if name in NORMALIZED else None,
        "pre_tokenizer": cut,
        "post_processor": _around(tokens, before, []),
        "model": {**BPE, **model},
    }


BPE: Content = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}  # fmt: skip


def _sentencepiece(name: str, metadata: Mapping[str, Value], tokens: Sequence[str], types: Sequence[int]) -> Content:
    """As transformers turns a sentencepiece model into merges: each way to build a piece, best piece first."""
    scores = metadata["tokenizer.ggml.scores"]
    assert isinstance(scores, np.ndarray)
    vocab = {text: index for index, text in enumerate(tokens)}
    built = [(text, index) for text, index in vocab.items() if types[index] == TokenType.NORMAL]
    ways = [
        (-float(scores[index]), vocab[text[:cut]], vocab[text[cut:]], text[:cut], text[cut:])
        for text, index in built
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    merges = [[left, right] for _, _, _, left, right in sorted(ways)]
    model = {**BPE, "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    parts = [{"type": "Prepend", "prepend": "▁"}, _replace(" ", "▁")]
    before = [1] if metadata.get("tokenizer.ggml.add_bos_token", True) else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": parts},
        "pre_tokenizer": None,
        "post_processor": _around(tokens, before, []),
        "model": {**model, "vocab": vocab, "merges": merges},
    }


def _gemma(name: str, metadata: Mapping[str, Value], tokens: Sequence[str], types: Sequence[int]) -> Content:
    cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    model = {**BPE, "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    vocab = {text: index for index, text in enumerate(tokens)}
    return {
        "normalizer": _replace(" ", "▁"),
        "pre_tokenizer": cut,
        "post_processor": _around(tokens, [2], []),
        "model": {**model, "vocab": vocab, "merges": _merges(metadata)},
    }


def _wordpiece(name: str, metadata: Mapping[str, Value], tokens: Sequence[str], types: Sequence[int]) -> Content:
    def spelled(text: str, kind: int) -> str:
        if kind == TokenType.CONTROL or (text.startswith("[") and text.endswith("]") and len(text) > 2):
            return text
        return text[1:] if text.startswith("▁") else f"##{text}"

    vocab = {spelled(text, types[index]): index for index, text in enumerate(tokens)}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100, "vocab": vocab}  # fmt: skip
    return {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _around(tokens, [101], [102]),
        "model": model,
    }  # fmt: skip


def _unigram(name: str, metadata: Mapping[str, Value], tokens: Sequence[str], types: Sequence[int]) -> Content:
    """XLM-RoBERTa's. What fills the rows behind its vocabulary is left out."""
    scores, charsmap = metadata["tokenizer.ggml.scores"], metadata["tokenizer.ggml.precompiled_charsmap"]
    assert isinstance(scores, np.ndarray)
    assert isinstance(charsmap, np.ndarray)
    vocab = [[text, float(scores[index])] for index, text in enumerate(tokens) if types[index] != TokenType.UNUSED]
    encoded = base64.b64encode(charsmap.tobytes()).decode()
    cut = [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]
    return {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": encoded},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cut},
        "post_processor": _around(tokens, [0], [2]),
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def _replace(old: str, new: str) -> Content:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _around(tokens: Sequence[str], before: Sequence[Any], after: Sequence[Any]) -> Content | None:
    if not before and not after:
        return None
    special = {tokens[int(token_id)]: int(token_id) for token_id in (*before, *after)}
    pieces = [{"SpecialToken": {"id": tokens[int(token_id)], "type_id": 0}} for token_id in before]
    behind = [{"SpecialToken": {"id": tokens[int(token_id)], "type_id": 0}} for token_id in after]
    text, second = ({"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB"))
    named = {text: {"id": text, "ids": [token_id], "tokens": [text]} for text, token_id in special.items()}
    single = [*pieces, text, *behind]
    pair = [*single, *pieces[: len(behind) == 0], second, *behind]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}


def fixtures(file: Path) -> list[tuple[str, list[int]]]:
    """Texts and ids of llama.cpp's own test, where there is one for the vocabulary."""
    texts, ids = file.with_name(file.name + ".inp"), file.with_name(file.name + ".out")
    if not texts.exists():
        return []
    inputs = texts.read_text(encoding="utf-8").split(SEPARATOR)
    outputs = [[int(part) for part in line.split()] for line in ids.read_text(encoding="utf-8").split("\n")]
    return list(zip(inputs, outputs, strict=False))


def examined(file: Path, work: Path) -> Line:
    """One vocabulary, all the way."""
    name = file.stem.removeprefix("ggml-vocab-")
    metadata = gguf.read(file).metadata
    checkpoint = work / name
    checkpoint.mkdir()
    content = tokenizer_json(name, metadata)
    (checkpoint / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    begun = time.monotonic()
    ids = {f"{role}_token_id": metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos")}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(_specials(metadata)), encoding="utf-8")
    found = tokenizer.read(checkpoint, {key: int(value) for key, value in ids.items() if value is not None},  # type: ignore[arg-type]
                           len(_tokens(metadata)[0]))  # fmt: skip
    failures = [item for item in found.items if item.verdict == "fail"]
    assert not failures, failures
    settled = settle(checkpoint, found)
    out = work / f"{name}.gguf"
    gguf.write(out, {**MODEL, **settled.metadata}, [])
    return _compared(name, checkpoint, out, fixtures(file), begun)


def _specials(metadata: Mapping[str, Value]) -> dict[str, str]:
    tokens, _ = _tokens(metadata)
    roles = ("unknown", "padding", "mask", "cls", "seperator")
    names = {"unknown": "unk", "padding": "pad", "seperator": "sep"}
    ids = {names.get(role, role): metadata.get(f"tokenizer.ggml.{role}_token_id") for role in roles}
    return {f"{role}_token": tokens[int(value)] for role, value in ids.items() if value is not None}  # type: ignore[arg-type]


def _compared(name: str, checkpoint: Path, out: Path, wanted: Sequence[tuple[str, list[int]]], begun: float) -> Line:
    own, metadata = truth(checkpoint), gguf.read(out).metadata
    with comparison.open_vocabulary(out) as vocab:
        texts = comparison.texts_for(vocab, metadata, parses_special=True)
        native = comparison.compare(texts, comparison.native_modes(own, vocab), most=None)
        ours = comparison.compare(texts, comparison.modes(own, vocab), most=None)
        theirs = sum(list(own.encode(text, None, False).ids) == ids for text, ids in wanted)
        given = sum(vocab.tokenize(text, add_special=False, parse_special=False) == ids for text, ids in wanted)
    for difference in native.first[:2]:
        print(difference, file=sys.stderr)
    pre = str(metadata["tokenizer.ggml.pre"])
    return Line(
        name,
        str(metadata["tokenizer.ggml.model"]),
        pre,
        (theirs, given, len(wanted)),
        native.differing,
        native.compared,
        ours.differing,
        str(metadata["ingle.tokenizer.verdict"]).partition(":")[0],
        time.monotonic() - begun,
    )


def table(lines: Iterator[Line]) -> Iterator[str]:
    """Markdown, row by row."""
    titles = ("vocabulary", "model", "pre-tokenizer", "fixtures: tokenizers, ingle", "texts", "llama.cpp alone differs",
              "ingle differs", "verdict", "s")  # fmt: skip
    yield f"| {' | '.join(titles)} |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in lines:
        theirs, ours, total = line.fixtures
        shown = f"{theirs}, {ours} of {total}" if total else "none"
        yield (
            f"| {line.name} | {line.kind} | {line.pre} | {shown} | {line.compared:,} | {line.native} | "
            f"{line.differing} | {line.verdict} | {line.seconds:.0f} |"
        )


def main() -> None:
    folder, chosen = Path(sys.argv[1]), sys.argv[2:]
    files = [file for file in sorted(folder.glob("ggml-vocab-*.gguf"))
             if not chosen or file.stem.removeprefix("ggml-vocab-") in chosen]  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        for row in table(examined(file, Path(work)) for file in files):
            print(row, flush=True)


if __name__ == "__main__":
    main()
