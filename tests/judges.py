"""Tiny checkpoints of language models that judge documents, from recipes (tests/judges/*.json) that
tests/reference/make_judges.py wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import encoders
from sweeping import write_weights

RECIPES = Path(__file__).parent / "judges"
TEMPLATE = (
    "<s>{% for message in messages if message.role == 'system' %}[{{ message.content }}]\n{% endfor %}"
    "Q: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "D: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}</s>answer:"
)
TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / f"{name}.json").read_text())
    return found


def write(folder: Path, recipe: Mapping[str, Any]) -> Path:
    """The checkpoint of a recipe, as sentence-transformers saves one."""
    modes = {"text": {"method": "forward", "method_output_name": "logits"}}
    files: dict[str, Any] = {
        **encoders.tokenizer_files(),
        "config.json": recipe["config"],
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": LOGIT_SCORE},
        ],
        "1_LogitScore/config.json": recipe["words"],
        "sentence_bert_config.json": {
            "transformer_task": "text-generation",
            "module_output_name": "causal_logits",
            "modality_config": {**modes, "message": {**modes["text"], "format": "flat"}},
        },
        "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
    }
    files["tokenizer.json"]["post_processor"] = None  # the template writes what stands around a text
    files["tokenizer_config.json"]["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    write_weights(folder / "model.safetensors", recipe["tensors"], centred=False)
    return folder
