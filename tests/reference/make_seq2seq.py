"""Write tests/seq2seq/*.json: tiny encoder-decoders, and the token ids that transformers' ``generate`` writes.

Needs torch and transformers, and is run by hand: ``python tests/reference/make_seq2seq.py [name ...]``. The weights are
those of ``tests/sweeping.py``, which the tests draw again. Where the model has a GELU, it is computed as ggml does,
from a table of f16: random weights are near enough to ties that one choice in a thousand would fall otherwise.
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
from transformers import PreTrainedTokenizerFast

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
import tasked  # noqa: E402

SHAPE = {"vocab_size": 264, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2,
         "num_heads": 4, "decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", SHAPE),
    "flan_t5": ("T5", {**SHAPE, **GATED}),
    "mt5": ("MT5", {**SHAPE, **GATED, "num_decoder_layers": 1}),
    "umt5": ("UMT5", {**SHAPE, **GATED, "num_layers": 3}),
}
# A second token that ends an answer, which random weights choose often enough.
ENDS = {"t5": 161, "flan_t5": 71, "mt5": 71, "umt5": 71}
WAYS: Mapping[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 16},
    "beams": {"num_beams": 4, "max_new_tokens": 16},
    "greedy, nothing twice": {"max_new_tokens": 12, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
    "long beams": {"num_beams": 4, "max_new_tokens": 20, "length_penalty": 2.0, "min_new_tokens": 6,
                   "no_repeat_ngram_size": 2, "early_stopping": True},
    "short beams": {"num_beams": 3, "max_length": 12, "length_penalty": -1.0, "early_stopping": "never",
                    "repetition_penalty": 1.5},
    "forced": {"num_beams": 2, "max_length": 10, "forced_bos_token_id": 77, "forced_eos_token_id": 2,
               "suppress_tokens": [30, 40, 41, 42]},
    "several": {"num_beams": 4, "max_new_tokens": 8, "num_return_sequences": 3},
}  # fmt: skip
BASIC = ("greedy", "beams")
LINES = (
    "Shall I compare thee to a summer's day?", "Thou art more lovely and more temperate:",
    "Rough winds do shake the darling buds of May,", "And summer's lease hath all too short a date;",
    "Sometime too hot the eye of heaven shines,", "Zürich, naïve café", "你好，世界", "🎉!", "x", "",
)  # fmt: skip
TEXTS = [f"{before}{line}" for before in ("", "translate: ", "summarize: ", "1 ", "Q? ") for line in LINES]
FEW = 10


class TableGelu(torch.nn.Module):
    """ggml's: argument and value rounded to f16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = x.half().float()
        return torch.nn.functional.gelu(rounded, approximate="tanh").half().float()


def make(name: str) -> None:
    stem, config = MODELS[name]
    kind = getattr(transformers, f"{stem}ForConditionalGeneration")
    ends = [2, ENDS[name]]
    generation = {"decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": ends}
    recipe: dict[str, Any] = {"family": "t5", "kind": name, "files": {"generation_config.json": generation}}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        kind(getattr(transformers, f"{stem}Config")(**config)).save_pretrained(folder)
        recipe["config"] = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            recipe["tensors"] = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with tempfile.TemporaryDirectory() as folder:
        tasked.write(Path(folder), recipe)
        model, info = kind.from_pretrained(folder, output_loading_info=True)
        if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            raise SystemExit(f"{name}: {info}")
        for module in model.modules():
            if hasattr(module, "act") and hasattr(module, "wi_0"):
                module.act = TableGelu()
        files = tasked.tokenizer_files("t5")["tokenizer_config.json"]
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", **files)
        recipe["golden"] = [
            {"way": way, "settings": settings, "texts": written(model.eval(), tokenizer, settings, way in BASIC)}
            for way, settings in WAYS.items()
        ]
    (TESTS / "seq2seq").mkdir(exist_ok=True)
    (TESTS / "seq2seq" / f"{name}.json").write_text(json.dumps(recipe, ensure_ascii=False) + "\n")
    ids = {tuple(ids) for case in recipe["golden"] for text in case["texts"] for ids in text["ids"]}
    ended = sum(one[-1] in ends for one in ids)
    sys.stdout.write(f"{name}: {len(ids)} different answers, {ended} ended, {sum(len(set(one)) for one in ids)} "
                     f"different tokens\n")  # fmt: skip


def written(model: Any, tokenizer: Any, settings: Mapping[str, Any], every: bool) -> list[dict[str, Any]]:
    cases = []
    for text in TEXTS if every else TEXTS[:FEW]:
        encoded = tokenizer(text, return_tensors="pt")
        out = model.generate(**encoded, **settings, do_sample=False)
        cases.append({"input": text, "ids": [whole(row, model.generation_config.eos_token_id) for row in out.tolist()]})
    return cases


def whole(row: list[int], ends: list[int]) -> list[int]:
    """Without the padding behind its end."""
    return next((row[: index + 1] for index, token in enumerate(row) if token in ends), row)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        make(chosen)
