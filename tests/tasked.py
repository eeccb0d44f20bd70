"""Tiny checkpoints for tasks, from recipes (tests/tasks/*.json): as in tests/encoders.py, but each has a tokenizer that
tells pairs apart, and what transformers' pipelines made of some inputs (tests/reference/make_tasks.py wrote them)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import encoders
from ingle.convert import convert, gguf
from sweeping import write_weights

RECIPES = Path(__file__).parent / "tasks"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))
SEGMENTED = ("bert", "electra", "nomic")
WORDPIECE = "wordpiece"
PLAIN_INPUTS = ["input_ids", "attention_mask"]


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


def write(folder: Path, recipe: Mapping[str, Any], family: str = "") -> Path:
    """The checkpoint of a recipe, with the tokenizer of another family if one is named."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(recipe["config"]))
    for name, content in {**tokenizer_files(family or recipe["family"]), **recipe.get("files", {})}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    write_weights(folder / "model.safetensors", recipe["tensors"], centred=False)
    return folder


def converted(folder: Path, recipe: Mapping[str, Any], dtype: str = "f32") -> Path:
    """The file of a recipe's checkpoint. That of a WordPiece tokenizer, whose ids are those of our bytes, is put into
    the file of a checkpoint with the latter, which is what reads texts then."""
    path = folder / f"{dtype}.gguf"
    if recipe["family"] != WORDPIECE:
        return convert(write(folder / "checkpoint", recipe), path, dtype).path
    file = gguf.read(convert(write(folder / "checkpoint", recipe, "bert"), folder / "bytes.gguf", dtype).path)
    document = json.dumps(tokenizer_files(WORDPIECE)["tokenizer.json"])
    return rewritten(file, path, {**file.metadata, "tokenizer.huggingface.json": document})


def rewritten(file: gguf.GGUF, path: Path, metadata: Mapping[str, Any]) -> Path:
    """The same tensors under other metadata."""
    plans = [
        gguf.TensorPlan(name, info.shape, info.type, lambda name=name: [file.tensor(name)])
        for name, info in file.tensors.items()
    ]
    gguf.write(path, metadata, plans)
    return path


def tokenizer_files(family: str) -> dict[str, Any]:
    """Bytes as tokens; around them what BERT has, with segments, or what RoBERTa has. Or WordPiece, as BERT has it."""
    if family == WORDPIECE:
        return wordpiece_files()
    files = encoders.tokenizer_files()
    tokenizer, settings = files["tokenizer.json"], files["tokenizer_config.json"]
    if family in SEGMENTED:
        settings["model_input_names"] = [*PLAIN_INPUTS, "token_type_ids"]
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [_token("<s>", 0), _text("A", 0), _token("</s>", 0)],
            "pair": [_token("<s>", 0), _text("A", 0), _token("</s>", 0), _text("B", 1), _token("</s>", 1)],
            "special_tokens": {
                text: {"id": text, "ids": [number], "tokens": [text]} for text, number in (("<s>", 0), ("</s>", 2))
            },
        }
    elif family in ("roberta", "xlm_roberta", "distilbert", "modernbert"):
        settings["model_input_names"] = PLAIN_INPUTS
    elif family in ("t5", "mt5", "umt5"):
        tokenizer["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [_text("A", 0), _token("</s>", 0)],
            "pair": [_text("A", 0), _token("</s>", 0), _text("B", 0), _token("</s>", 0)],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
        }
        del settings["bos_token"], settings["cls_token"], settings["sep_token"]
    return files


def wordpiece_files() -> dict[str, Any]:
    """Letters, some words, and both as what goes on in a word."""
    specials = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["shall", "com", "##pare", "##mer", "day", "win", "##ds", "william", "london", "##speare", "wrote", "##ing"]
    vocab = {text: number for number, text in enumerate(
        [*specials, *letters, *(f"##{letter}" for letter in letters), *words, *"'?!.,;-", "好", "你"])}  # fmt: skip
    around = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in (("[CLS]", 0), ("[SEP]", 2))}
    names = {"cls_token": "[CLS]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]",
             "mask_token": "[MASK]"}  # fmt: skip
    return {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [
                {"id": number, "content": text, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                 "single_word": False} for number, text in enumerate(specials)
            ],
            "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                           "strip_accents": None, "lowercase": True},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing", "special_tokens": around,
                "single": [_token("[CLS]", 0), _text("A", 0), _token("[SEP]", 0)],
                "pair": [_token("[CLS]", 0), _text("A", 0), _token("[SEP]", 0), _text("B", 1), _token("[SEP]", 1)],
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        },
        "tokenizer_config.json": {**names, "model_input_names": [*PLAIN_INPUTS, "token_type_ids"]},
    }  # fmt: skip


def _token(text: str, segment: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": text, "type_id": segment}}


def _text(name: str, segment: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": segment}}
