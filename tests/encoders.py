"""Tiny encoder checkpoints from recipes (tests/encoders/*.json): config, tensor names and shapes as transformers saved
them, and what transformers computed of the weights that tests/sweeping.py draws for these names
(tests/reference/make_encoders.py wrote them)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ingle.runtime.tasks.encoder import Encoder
from sweeping import values, write_weights

RECIPES = Path(__file__).parent / "encoders"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


def write(folder: Path, recipe: Mapping[str, Any]) -> Path:
    """The checkpoint of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(recipe["config"]))
    for name, content in {**tokenizer_files(), **recipe.get("files", {})}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    for place, tensors in {"model.safetensors": recipe["tensors"], **recipe.get("more_tensors", {})}.items():
        write_weights(folder / place, tensors, recipe.get("centred", False))
    return folder


def tokenizer_files() -> dict[str, Any]:
    """Byte-level BPE without merges, put between <s> and </s> as RoBERTa does."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = [chr(code) for code in _byte_letters()]
    return {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [
                {"id": index, "content": text, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
                 "single_word": False} for index, text in enumerate(specials)
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
                               "trim_offsets": True, "add_prefix_space": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {text: index for index, text in enumerate(specials + letters)}, "merges": []},
        },
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
                                  "mask_token": "<mask>", "cls_token": "<s>", "sep_token": "</s>",
                                  "clean_up_tokenization_spaces": False},
    }  # fmt: skip


def _byte_letters() -> list[int]:
    """GPT-2's letters for the 256 bytes (transformers: bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return printable + [256 + index for index in range(256 - len(printable))]


def weights(name: str, tensor: str) -> np.ndarray:
    """The values of a tensor of a recipe."""
    return values(tensor, tuple(recipe(name)["tensors"][tensor]), centred=False)


def both(encoder: Encoder, case: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What we and what transformers make of the tokens of a case: states, or what the head gives."""
    states = encoder.states(case["ids"])
    if "states" in case:
        return states, np.array(case["states"])
    assert encoder.head is not None
    return encoder.head.run(states), np.array(case.get("logits", case.get("embedding")))
