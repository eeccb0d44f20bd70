"""Write tests/judges/*.json: tiny language models that judge documents, and how sentence-transformers ranks with them.

Needs sentence-transformers 5.4 or newer, and is run by hand: ``python tests/reference/make_judges.py``. The weights are
those of ``tests/sweeping.py``, which the tests draw again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from sentence_transformers import CrossEncoder

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
import judges  # noqa: E402

SHAPE = {"vocab_size": 264, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
         "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # fmt: skip
KINDS: Mapping[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True, "words": {"true_token_id": 94, "false_token_id": 83}},
    "untied": {"tie_word_embeddings": False, "words": {"true_token_id": 21, "false_token_id": None}},
}
QUERY = "Who wrote Hamlet?"
INSTRUCTION = "Find what answers the question."
DOCUMENTS = ("Shakespeare did.", "A play of 1600.", "Zürich, naïve café", "你好，世界 🎉!", "</s> yes <s>", "x", "",
             "Shall I compare thee to a summer's day? Thou art more lovely and more temperate.")  # fmt: skip


def make(name: str) -> None:
    settings = dict(KINDS[name])
    words = settings.pop("words")
    recipe: dict[str, Any] = {"words": words}
    with tempfile.TemporaryDirectory() as folder:
        config = transformers.Qwen3Config(**SHAPE, **settings)
        transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
        recipe["config"] = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            recipe["tensors"] = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with tempfile.TemporaryDirectory() as folder:
        judges.write(Path(folder), recipe)
        model = CrossEncoder(folder, activation_fn=torch.nn.Identity())
        plain = [document for document in DOCUMENTS if "<s>" not in document]  # theirs can be forged
        recipe["golden"] = [
            {"instruction": said, "query": QUERY, "documents": plain, "logits": logits(model, plain, said)}
            for said in ("", INSTRUCTION)
        ]
    (TESTS / "judges").mkdir(exist_ok=True)
    (TESTS / "judges" / f"{name}.json").write_text(json.dumps(recipe, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{name}: {recipe['golden'][0]['logits']}\n")


def logits(model: CrossEncoder, documents: list[str], said: str) -> list[float]:
    found = model.predict([(QUERY, document) for document in documents], prompt=said or None)
    return [round(float(value), 6) for value in found]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or KINDS:
        make(chosen)
