"""Write tests/embedders/*.json: tiny decoders that embed texts, and what sentence-transformers makes of some.

Needs sentence-transformers 6, and is run by hand: ``PYTHONPATH=.typing python tests/reference/make_embedders.py``. The
weights are those of ``tests/sweeping.py``, which the tests draw again. The modules of each checkpoint are described
once as the models on the hub have them, and once as sentence-transformers 6 saves them.
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
from sentence_transformers import SentenceTransformer

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
import encoders  # noqa: E402

WIDTH = 64
SHAPE = {"vocab_size": 264, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 3,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
         "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # fmt: skip
GEMMA = {"use_bidirectional_attention": True, "sliding_window": 24, "query_pre_attn_scalar": 16,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}  # fmt: skip
POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
TEXTS = ("Shall I compare thee to a summer's day?", "", "🎉", "你好，世界", "Zürich, naïve café", "x" * 200)


def modules(*names: str) -> dict[str, Any]:
    places = {name: "" if index == 0 else f"{index}_{name}" for index, name in enumerate(names)}
    kinds = [{"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name.strip('2')}"}
             for index, (name, path) in enumerate(places.items())]  # fmt: skip
    return {"modules.json": kinds}


def pooling(chosen: str) -> dict[str, Any]:
    modes = {f"pooling_mode_{name}": name == chosen for name in POOLINGS}
    return {"1_Pooling/config.json": {"word_embedding_dimension": WIDTH, **modes, "include_prompt": True}}


def dense(number: int, size: tuple[int, int]) -> dict[str, Any]:
    linear = {"in_features": size[0], "out_features": size[1], "bias": False,
              "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
    return {f"{number}_Dense{'2' if number > 2 else ''}/config.json": linear}


def prompts(**texts: str) -> dict[str, Any]:
    return {"config_sentence_transformers.json": {"prompts": texts, "default_prompt_name": None,
                                                  "similarity_fn_name": "cosine"}}  # fmt: skip


MODELS: Mapping[str, dict[str, Any]] = {
    "qwen3": {
        "class": "Qwen3ForCausalLM",
        "config": transformers.Qwen3Config(**SHAPE, tie_word_embeddings=True),
        "files": {**modules("Transformer", "Pooling", "Normalize"), **pooling("lasttoken"),
                  **prompts(query="Instruct: find it\nQuery:", document="")},
        "dense": {},
    },
    "gemma": {
        "class": "Gemma3TextModel",
        "config": transformers.Gemma3TextConfig(**SHAPE, **GEMMA),
        "files": {**modules("Transformer", "Pooling", "Dense", "Dense2", "Normalize"), **pooling("mean_tokens"),
                  **dense(2, (WIDTH, 96)), **dense(3, (96, WIDTH)),
                  **prompts(query="task: search result | query: ", document="title: none | text: ")},
        "dense": {"2_Dense/model.safetensors": {"linear.weight": [96, WIDTH]},
                  "3_Dense2/model.safetensors": {"linear.weight": [WIDTH, 96]}},
    },
}  # fmt: skip


def make(name: str) -> None:
    chosen = MODELS[name]
    plain = encoders.tokenizer_files()["tokenizer_config.json"]
    # Named, or transformers 5 takes the class of the family, which reads tokenizer.json in a way of its own.
    files = {**chosen["files"], "tokenizer_config.json": {**plain, "tokenizer_class": "PreTrainedTokenizerFast"}}
    recipe: dict[str, Any] = {"files": files, "more_tensors": chosen["dense"]}
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, chosen["class"])(chosen["config"]).save_pretrained(folder)
        recipe["config"] = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            recipe["tensors"] = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as saved:
        encoders.write(Path(folder), recipe)
        model = SentenceTransformer(folder, device="cpu")
        recipe["golden"] = [
            {"prompt": prompt, "text": text, "embedding": embedded(model, text, prompt)}
            for prompt in ("", "query")
            for text in TEXTS
        ]
        model.save_pretrained(saved)
        made = [path for path in Path(saved).rglob("*.json") if path.name not in ("config.json", "tokenizer.json",
                                                                                 "tokenizer_config.json")
                or path.parent != Path(saved)]  # fmt: skip
        recipe["saved"] = {str(path.relative_to(saved)): json.loads(path.read_text()) for path in sorted(made)}
    (TESTS / "embedders").mkdir(exist_ok=True)
    (TESTS / "embedders" / f"{name}.json").write_text(json.dumps(recipe, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{name}: {list(recipe['saved'])}\n")


def embedded(model: SentenceTransformer, text: str, prompt: str) -> list[float]:
    vector = model.encode([text], prompt_name=prompt or None, show_progress_bar=False)[0]
    return [round(float(value), 6) for value in vector]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for one in sys.argv[1:] or MODELS:
        make(one)
