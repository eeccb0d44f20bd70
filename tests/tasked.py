"""Tiny checkpoints for tasks, from recipes (tests/tasks/*.json): as in tests/encoders.py, but each has a tokenizer that
tells pairs apart, and what transformers' pipelines made of some inputs (tests/reference/make_tasks.py wrote them)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import encoders
from sweeping import write_weights

RECIPES = Path(__file__).parent / "tasks"
NAMES = sorted(path.stem for path in RECIPES.glob("*.json"))
SEGMENTED = ("bert", "electra", "nomic")
PLAIN_INPUTS = ["input_ids", "attention_mask"]


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


def write(folder: Path, recipe: Mapping[str, Any]) -> Path:
    """The checkpoint of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(recipe["config"]))
    for name, content in {**tokenizer_files(recipe["family"]), **recipe.get("files", {})}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    write_weights(folder / "model.safetensors", recipe["tensors"], centred=False)
    return folder


def tokenizer_files(family: str) -> dict[str, Any]:
    """Bytes as tokens; around them what BERT has, with segments, or what RoBERTa has."""
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


def _token(text: str, segment: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": text, "type_id": segment}}


def _text(name: str, segment: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": segment}}
