"""Tokenizers without a tokenizer.json: ``vocab.json`` with ``merges.txt``, or ``vocab.txt``.

These files hold pieces and merges only; how a text is cut before them was the code of a class of transformers. The
classes that are known here are described as their tokenizer.json would describe them, and read like one from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BadCheckpoint, UnsupportedModel
from .jsonfile import read_bytes, read_object
from .pretokenizer import QWEN2

MAX_BYTES = 32 << 20
VOCAB, MERGES, WORDS, ADDED = "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json"
Content = dict[str, Any]
BYTE_LEVEL: Content = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

SPECIALS: Mapping[str, Mapping[str, str]] = {
    "GPT2": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    "Qwen2": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "Roberta": {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
                "pad_token": "<pad>", "mask_token": "<mask>"},
    "Bert": {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
             "mask_token": "[MASK]"},
}  # fmt: skip
"""What the classes call their special tokens where tokenizer_config.json does not."""
KINDS: Mapping[str, str] = {"GPT2": VOCAB, "Qwen2": VOCAB, "Roberta": VOCAB, "Bert": WORDS}
ALIASES: Mapping[str, str] = {"DistilBert": "Bert", "Electra": "Bert"}
MODEL_TYPES: Mapping[str, str] = {
    "gpt2": "GPT2", "qwen2": "Qwen2", "roberta": "Roberta", "bert": "Bert", "distilbert": "Bert", "electra": "Bert",
    "xlm-roberta": "XLMRoberta",
}  # fmt: skip


def read(folder: Path, settings: Mapping[str, Any]) -> Content | None:
    """What a tokenizer.json of the checkpoint would say; None where it has none of these files.

    Raises:
        UnsupportedModel: its class is not one that we know. BadCheckpoint: a file is broken.
    """
    if not (folder / WORDS).is_file() and not ((folder / VOCAB).is_file() and (folder / MERGES).is_file()):
        return None
    named = kind(folder, settings)
    if named not in KINDS or not (folder / KINDS[named]).is_file():
        raise UnsupportedModel(
            f"{folder} has no tokenizer.json, and the class of its tokenizer ({named or 'not named'}) is not one whose "
            f"way to cut text is known ({', '.join(KINDS)})",
            hint="load the tokenizer with transformers and save it again: that writes a tokenizer.json",
        )
    names = {**SPECIALS[named], **_special_texts(settings)}
    vocab = _words(folder) if named == "Bert" else read_object(folder / VOCAB, MAX_BYTES)
    missing = [text for text in names.values() if text not in vocab]
    if missing:
        raise BadCheckpoint(f"the special token {missing[0]!r} is not in {folder / KINDS[named]}")
    content = DESCRIBED[named](folder, settings, vocab, names)
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": True} if named == "Bert" else BYTE_LEVEL
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": _added(folder, settings, vocab, names),
        "decoder": decoder, **content,
    }  # fmt: skip


def special_texts(folder: Path, settings: Mapping[str, Any]) -> Mapping[str, str]:
    """The special tokens that the class names, where these files are all there is."""
    return SPECIALS.get(kind(folder, settings), {})


def kind(folder: Path, settings: Mapping[str, Any]) -> str:
    """The class of the tokenizer, without ``Tokenizer`` or ``TokenizerFast``."""
    named = str(settings.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    config = folder / "config.json"
    if not named and config.is_file():
        named = MODEL_TYPES.get(str(read_object(config).get("model_type")), "")
    return ALIASES.get(named, named)


def _gpt2(folder: Path, settings: Mapping[str, Any], vocab: Mapping[str, int], names: Mapping[str, str]) -> Content:
    cut = {**BYTE_LEVEL, "add_prefix_space": bool(settings.get("add_prefix_space"))}
    return {"normalizer": None, "pre_tokenizer": cut, "post_processor": None, "model": _bpe(folder, vocab)}


def _roberta(folder: Path, settings: Mapping[str, Any], vocab: Mapping[str, int], names: Mapping[str, str]) -> Content:
    around = {"cls": _pair(names["cls_token"], vocab), "sep": _pair(names["sep_token"], vocab)}
    flags = {"trim_offsets": bool(settings.get("trim_offsets", True))}
    content = _gpt2(folder, settings, vocab, names)
    flags["add_prefix_space"] = content["pre_tokenizer"]["add_prefix_space"]
    return {**content, "post_processor": {"type": "RobertaProcessing", **around, **flags}}


def _qwen2(folder: Path, settings: Mapping[str, Any], vocab: Mapping[str, int], names: Mapping[str, str]) -> Content:
    content = _gpt2(folder, settings, vocab, names)
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    cut = {"type": "Sequence", "pretokenizers": [split, {**content["pre_tokenizer"], "use_regex": False}]}
    return {**content, "normalizer": {"type": "NFC"}, "pre_tokenizer": cut}


def _bert(folder: Path, settings: Mapping[str, Any], vocab: Mapping[str, int], names: Mapping[str, str]) -> Content:
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": bool(settings.get("tokenize_chinese_chars", True)),
        "strip_accents": settings.get("strip_accents"),
        "lowercase": bool(settings.get("do_lower_case", True)),
    }
    first, last = names["cls_token"], names["sep_token"]
    texts = [{"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB")]
    single = [_special(first, 0), texts[0], _special(last, 0)]
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, texts[1], _special(last, 1)],
            "special_tokens": {text: {"id": text, "ids": [vocab[text]], "tokens": [text]} for text in (first, last)},
        },
        "model": {"type": "WordPiece", "unk_token": names["unk_token"], "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": dict(vocab)},
    }  # fmt: skip


DESCRIBED: Mapping[str, Callable[[Path, Mapping[str, Any], Mapping[str, int], Mapping[str, str]], Content]] = {
    "GPT2": _gpt2,
    "Roberta": _roberta,
    "Qwen2": _qwen2,
    "Bert": _bert,
}


def _special(text: str, type_id: int) -> Content:
    return {"SpecialToken": {"id": text, "type_id": type_id}}


def _bpe(folder: Path, vocab: Mapping[str, int]) -> Content:
    lines = _lines(folder / MERGES)
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return {"type": "BPE", "unk_token": None, "byte_fallback": False, "vocab": dict(vocab), "merges": merges}


def _words(folder: Path) -> dict[str, int]:
    lines = _lines(folder / WORDS)
    vocab = {text: index for index, text in enumerate(lines)}
    if len(vocab) != len(lines):
        raise BadCheckpoint(f"{folder / WORDS} has {len(lines) - len(vocab)} lines twice")
    return vocab


def _lines(path: Path) -> list[str]:
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadCheckpoint(f"{path} is not UTF-8 text") from error
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _special_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    values = {name: value for name, value in settings.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _added(
    folder: Path, settings: Mapping[str, Any], vocab: Mapping[str, int], names: Mapping[str, str]
) -> list[Content]:
    """As tokenizer_config.json lists them, or added_tokens.json; the special tokens in any case."""
    listed = settings.get("added_tokens_decoder") or {}
    known = {int(token_id): {"id": int(token_id), **entry} for token_id, entry in listed.items()}
    if not listed and (folder / ADDED).is_file():
        special = set(names.values())
        for text, token_id in read_object(folder / ADDED).items():
            flags = {"special": text in special, "normalized": text not in special}
            known[token_id] = {"id": token_id, "content": text, **flags}
    for text in names.values():
        known.setdefault(vocab[text], {"id": vocab[text], "content": text, "special": True})
    return [_complete(known[token_id]) for token_id in sorted(known)]


def _complete(entry: Content) -> Content:
    return {"special": False, **_FLAGS, **{name: value for name, value in entry.items() if name != "__type"}}


_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def _pair(text: str, vocab: Mapping[str, int]) -> list[Any]:
    return [text, vocab[text]]


def files(folder: Path) -> Iterator[Path]:
    """The files of this kind that the checkpoint has."""
    yield from (folder / name for name in (VOCAB, MERGES, WORDS) if (folder / name).is_file())
