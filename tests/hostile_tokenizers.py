"""Fifty and more tokenizer.json files that lie, swell or lead astray, as changes of a sound one. Name -> bytes."""

from __future__ import annotations

import base64
import copy
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Content = dict[str, Any]
CALL = "__import__('os').system('touch CANARY')"
ADDED = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def files(sound: Content) -> Iterator[tuple[str, bytes]]:
    """All cases."""
    for name, change in CHANGES.items():
        content = copy.deepcopy(sound)
        change(content)
        yield name, json.dumps(content).encode()
    yield from texts(json.dumps(sound).encode())


def model(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content["model"].update(changes)


def part(**changes: Any) -> Callable[[Content], None]:
    return lambda content: content.update(changes)


def added(*entries: Any) -> Callable[[Content], None]:
    return lambda content: content["added_tokens"].extend(entries)


def piece(text: str, token_id: Any) -> Callable[[Content], None]:
    return lambda content: content["model"]["vocab"].update({text: token_id})


def cut(expression: Any) -> Callable[[Content], None]:
    """A byte-level tokenizer that splits by ``expression``."""
    split = {"type": "Split", "pattern": expression, "behavior": "Isolated", "invert": False}
    return part(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}, normalizer=None)


def renamed(content: Content, text: str, *, piece: bool = True) -> None:
    """The last piece gets another text; or an added token behind all pieces gets it."""
    vocab = content["model"]["vocab"]
    content["model"]["merges"] = []
    token_id = vocab.pop(next(reversed(vocab)))
    if piece:
        vocab[text] = token_id
    else:
        content["added_tokens"].append({"id": token_id, "content": text, **ADDED})


def nested(kind: str, child: str, depth: int) -> Any:
    node: Any = {"type": "Metaspace"}
    for _ in range(depth):
        node = {"type": kind, child: [node]}
    return node


def unigram(vocab: Any, charsmap: str = "", **more: Any) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["model"] = {"type": "Unigram", "unk_id": 0, "vocab": vocab, **more}
        content |= {"added_tokens": [], "post_processor": None}
        content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap} if charsmap else None
        content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}

    return change


def charsmap(data: bytes) -> Callable[[Content], None]:
    return unigram([["<unk>", 0.0], ["a", -1.0]], base64.b64encode(data).decode())


CHANGES: Mapping[str, Callable[[Content], None]] = {
    "no model": lambda content: content.pop("model"),
    "a model that is a list": part(model=[]),
    "a model that is code": part(model=CALL),
    "a model of no type": lambda content: content["model"].pop("type"),
    "a model of unknown type": model(type=CALL),
    "a type that is a list": model(type=["BPE"]),
    "no vocabulary": lambda content: content["model"].pop("vocab"),
    "a vocabulary of lists": model(vocab=[["a", 1]]),
    "a vocabulary that is text": model(vocab="abc"),
    "an id of 2^63": piece("evil", 1 << 63),
    "an id of 2^24": piece("evil", 1 << 24),
    "a negative id": piece("evil", -1),
    "an id that is a fraction": piece("evil", 1.5),
    "an id that is text": piece("evil", "7"),
    "an id that is true": piece("evil", True),
    "an id that is null": piece("evil", None),
    "one id for two pieces": piece("evil", 5),
    "a piece behind the embedding": piece("evil", 100_000),
    "a piece that is half a character": piece("\ud800", 383),
    "a piece of a megabyte": piece("a" * (1 << 20), 384),
    "a NUL in a piece": lambda content: renamed(content, "\0evil"),
    "a piece that is another's text": lambda content: renamed(content, "<0x41>", piece=False),
    "merges that are no list": model(merges="a b"),
    "a merge of one": model(merges=[["a"]]),
    "a merge of three": model(merges=[["a", "b", "c"]]),
    "a merge of numbers": model(merges=[[1, 2]]),
    "a merge of objects": model(merges=[{"a": "b"}]),
    "a merge to no piece": model(merges=[["evil", "evil"]]),
    "a million merges to no piece": model(merges=[["x", "y"]] * 300_000),
    "no bytes": lambda content: [content["model"]["vocab"].pop(f"<0x{byte:02X}>") for byte in range(256)] and None,
    "an added token without id": added({"content": "evil", **ADDED}),
    "an added token without text": added({"id": 9, **ADDED}),
    "an empty added token": added({"id": 9, "content": "", **ADDED}),
    "an added token that is text": added("evil"),
    "an added token of id -1": added({"id": -1, "content": "evil", **ADDED}),
    "an added token of id 2^62": added({"id": 1 << 62, "content": "evil", **ADDED}),
    "an added token of half a character": added({"id": 384, "content": "\udfff", **ADDED}),
    "an added token under another's id": added({"id": 300, "content": "evil", **ADDED}),
    "two added tokens of one id": added(*[{"id": 384, "content": text, **ADDED} for text in ("evil", "worse")]),
    "added tokens that are an object": part(added_tokens={"evil": 1}),
    "a normalizer that is code": part(normalizer=CALL),
    "a normalizer of unknown type": part(normalizer={"type": CALL}),
    "a normalizer of no type": part(normalizer={"normalizers": []}),
    "a sequence without parts": part(normalizer={"type": "Sequence", "normalizers": CALL}),
    "a sequence of nothing": part(pre_tokenizer={"type": "Sequence", "pretokenizers": [None]}),
    "sequences 30 deep": part(pre_tokenizer=nested("Sequence", "pretokenizers", 30), normalizer={"type": "Evil"}),
    "sequences 300 deep": part(pre_tokenizer=nested("Sequence", "pretokenizers", 300)),
    "100,000 normalizers": part(normalizer={"type": "Sequence", "normalizers": [{"type": "Evil"}] * 100_000}),
    "a regular expression that explodes": cut({"Regex": "(a+)+$" * 100}),
    "a regular expression of brackets": cut({"Regex": "[" * 4_000}),
    "a regular expression of a megabyte": cut({"Regex": "[" * (1 << 20)}),
    "a pattern that is a list": cut(["evil"]),
    "a pattern of numbers": cut({"Regex": 5}),
    "a post-processor of unknown type": part(post_processor={"type": CALL}),
    "a post-processor without ids": part(post_processor={"type": "BertProcessing", "cls": [], "sep": []}),
    "a post-processor with ids of text": part(post_processor={"type": "RobertaProcessing", "cls": ["a", CALL],
                                                             "sep": ["b", "2"]}),
    "a post-processor with ids below 0": part(post_processor={"type": "BertProcessing", "cls": ["a", -1],
                                                             "sep": ["b", -2]}),
    "a template that names no token": part(post_processor={"type": "TemplateProcessing", "pair": [],
                                                           "single": [{"SpecialToken": {"id": "evil", "type_id": 0}}],
                                                           "special_tokens": {}}),
    "a template of numbers": part(post_processor={"type": "TemplateProcessing", "single": [1], "special_tokens": {}}),
    "post-processors 40 deep": part(post_processor=nested("Sequence", "processors", 40)),
    "a unigram of numbers": unigram([[1, "a"]]),
    "a unigram without scores": unigram([["a"], ["b"]]),
    "a unigram with a score of 1e300": unigram([["<unk>", 0.0], ["a", -1e300]]),
    "a unigram whose unknown piece is elsewhere": unigram([["<unk>", 0.0]], unk_id=7),
    "a unigram larger than the embedding": unigram([[f"p{index}", -1.0] for index in range(5_000)]),
    "a charsmap that is not base64": unigram([["<unk>", 0.0], ["a", -1.0]], "evil!"),
    "a charsmap of two bytes": charsmap(b"\1\0"),
    "a charsmap of 4 billion": charsmap(struct.pack("<I", 0xFFFFFFFF) + bytes(64)),
    "a charsmap without replacements": charsmap(struct.pack("<I", 64) + bytes(64)),
    "a word piece that is no word": model(type="WordPiece", unk_token="[nowhere]"),
    "an unknown token that is a list": model(unk_token=["<unk>"]),
    "a suffix": model(end_of_word_suffix=CALL),
}  # fmt: skip


def texts(sound: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are no JSON, or more of it than anybody needs."""
    yield "empty", b""
    yield "cut in half", sound[: len(sound) // 2]
    yield "a list", b"[" + sound + b"]"
    yield "a number", b"1"
    yield "not UTF-8", sound.replace(b"Prepend", b"Prep\xff\xfe")
    yield "NaN", sound.replace(b'"dropout": null', b'"dropout": NaN')
    yield "nested a million times", b"[" * 1_000_000
    yield "a number of a million digits", b'{"model": ' + b"9" * 1_000_000 + b"}"
    yield "3 million lists", b'{"model": [' + b"[]," * 3_000_000 + b"[]]}"
    yield "2 million numbers", b'{"model": [' + b"1.5," * 2_000_000 + b"1]}"
    yield (
        "a million pieces of one id",
        (b'{"model": {"type": "BPE", "vocab": {' + b",".join(b'"%d":1' % index for index in range(700_000)) + b"}}}"),
    )
    yield "40 MB of blanks", b" " * (40 << 20) + b"{}"
    yield "60 MB of blanks", b" " * (60 << 20) + b"{}"
    yield "a text of 40 MB", b'{"model": "' + b"a" * (40 << 20) + b'"}'
    yield "a text of 30 MB, wide", b'{"model": "\xf0\x9f\x98\x80' + b"a" * (30 << 20) + b'"}'
    yield "30 MB of escaped quotes, wide", b'{"model": "\xf0\x9f\x98\x80' + b'\\"' * (15 << 20) + b'"}'
