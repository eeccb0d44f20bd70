"""Write tests/tasks/*.json: for each family and head a tiny config, the tensors that transformers saves, and what its
pipelines make of some inputs.

Needs torch and transformers, and is run by hand: ``python tests/reference/make_tasks.py [name ...]``. The weights are
those of ``tests/sweeping.py``, which the tests draw again. Question answering has no pipeline since transformers 5:
those are written by transformers 4 (``pip install "transformers<5"``), the others by 5.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast, pipeline

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
import tasked  # noqa: E402

VOCAB = 264
SHAPE = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 528}  # fmt: skip
DISTIL = {"vocab_size": VOCAB, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 528}
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
FAMILIES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SHAPE),
    "roberta": ("Roberta", {**SHAPE, **TOKENS, "type_vocab_size": 1}),
    "xlm_roberta": ("XLMRoberta", {**SHAPE, **TOKENS, "type_vocab_size": 1}),
    "distilbert": ("DistilBert", DISTIL),
    "electra": ("Electra", {**SHAPE, "embedding_size": 32}),
    "modernbert": ("ModernBert", {**SHAPE, **TOKENS, "num_hidden_layers": 4, "local_attention": 8, "cls_token_id": 0,
                                  "sep_token_id": 2}),
    "nomic": ("NomicBert", SHAPE),
    "wordpiece": ("Bert", SHAPE),
}  # fmt: skip
KINDS = {"labels": "ForSequenceClassification", "several": "ForSequenceClassification",
         "number": "ForSequenceClassification", "rank": "ForSequenceClassification",
         "tags": "ForTokenClassification", "answers": "ForQuestionAnswering", "masks": "ForMaskedLM",
         "states": "Model"}  # fmt: skip
SETTINGS: Mapping[str, dict[str, Any]] = {
    "labels": {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}},
    "several": {"id2label": {0: "a", 1: "b", 2: "c", 3: "d"}, "problem_type": "multi_label_classification"},
    "number": {"id2label": {0: "stars", 1: "length"}, "problem_type": "regression"},
    "rank": {"num_labels": 1},
    "tags": {"id2label": {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}},
}
# Single problems of classification are of the head, not of the family.
ONCE = ("several", "number")
WITHOUT = {("nomic", "answers"), ("wordpiece", "rank"), ("wordpiece", "states")}
TEXTS = (
    "Shall I compare thee to a summer's day?",
    "",
    "Zürich, naïve café",
    "你好，世界",
    "👩‍👩‍👧 and 🎉!",
    "Rough winds!",
)
PAIRS = (("Rough winds do shake", "the darling buds of May"), ("", "é"), ("今日", "👍 good"))
MASKED = ("Sweet {}s the day", "{} 你好", "a{}b{}c 🎉")
LABELS = ["love", "the weather", "été"]
QUESTIONS = (
    ("Who?", "William Shakespeare wrote it in London."),
    ("Où ça, 🎉?", "À Zürich; 你好 everybody, and so long lives this and this gives life to thee."),
    ("What?", "So long as men can breathe or eyes can see, " * 4),
)
ASKED: tuple[dict[str, Any], ...] = (
    {"top_k": 1},
    {"top_k": 4, "max_answer_len": 5},
    {"top_k": 3, "handle_impossible_answer": True},
    {"top_k": 2, "align_to_words": False},
)
WINDOW = {"max_seq_len": 64, "doc_stride": 16}
AGGREGATIONS = ("none", "simple", "first", "average", "max")


def make(family: str, kind: str) -> None:
    stem, config = FAMILIES[family]
    name = stem + KINDS[kind]
    labels = dict(SETTINGS.get(kind, {}))
    if "id2label" in labels:
        labels["label2id"] = {label: number for number, label in labels["id2label"].items()}
    settings = getattr(transformers, f"{stem}Config")(**config, **labels)
    recipe: dict[str, Any] = {"family": family, "kind": kind}
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, name)(settings).save_pretrained(folder)
        recipe["config"] = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            recipe["tensors"] = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with tempfile.TemporaryDirectory() as folder:
        tasked.write(Path(folder), recipe)
        model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
        if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            raise SystemExit(f"{name}: {info}")
        files = tasked.tokenizer_files(family)["tokenizer_config.json"]
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", **files)
        recipe["golden"] = GOLDEN[kind](model.eval(), tokenizer)
    (TESTS / "tasks" / f"{family}_{kind}.json").write_text(json.dumps(recipe, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{family}_{kind}: {len(recipe['tensors'])} tensors\n")


def classified(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    run = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    inputs = [*TEXTS, *({"text": first, "text_pair": second} for first, second in PAIRS)]
    found = [plain(run(one)) for one in inputs]
    return [
        {"input": one, "labels": out[0] if isinstance(out[0], list) else out}
        for one, out in zip(inputs, found, strict=True)
    ]


def judged(model: Any, tokenizer: Any) -> dict[str, Any]:
    run = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    cases = []
    for text in TEXTS:
        if text:  # the pipeline takes no empty text
            for several in (False, True):
                out = run(text, candidate_labels=LABELS, multi_label=several, hypothesis_template="It is {}!")
                cases.append({"input": text, "multi_label": several, "result": plain(out)})
    return {"text-classification": classified(model, tokenizer), "zero-shot-classification": cases}


def ranked(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """Logits: what becomes of them is for sentence-transformers to say, which takes their sigmoid."""
    cases = []
    for query in TEXTS[:3]:
        # In lists, since a tokenizer takes an empty second text for none.
        encoded = [tokenizer([query], [text], return_tensors="pt") for text in TEXTS]
        with torch.no_grad():
            logits = [float(model(**one).logits[0, 0]) for one in encoded]
        cases.append({"query": query, "documents": list(TEXTS), "logits": plain(logits)})
    return cases


def tagged(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    cases = []
    for aggregation in AGGREGATIONS:
        run = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation)
        cases += [{"input": text, "aggregation": aggregation, "entities": plain(run(text))} for text in TEXTS if text]
    return cases


def answered(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    run = pipeline("question-answering", model=model, tokenizer=tokenizer)
    cases = []
    for question, context in QUESTIONS:
        for asked in ASKED:
            out = plain(run(question=question, context=context, **asked, **WINDOW))
            cases.append({"question": question, "context": context, "asked": asked,
                          "answers": out if isinstance(out, list) else [out]})  # fmt: skip
    return cases


def filled(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    run = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    cases = []
    for text in (text.replace("{}", tokenizer.mask_token) for text in MASKED):
        for targets in (None, ["a", "q", "Z"]):
            out = plain(run(text, top_k=3, targets=targets))
            cases.append({"input": text, "targets": targets, "masks": out if isinstance(out[0], list) else [out]})
    return cases


def states(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """The mean of the states, and the first and last state, of each text."""
    cases = []
    for text in (*TEXTS, "So long lives this, " * 25 + "and this g"):
        with torch.no_grad():
            out = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        cases.append({"input": text, "tokens": len(out), "mean": plain(out.mean(0).tolist()),
                      "first": plain(out[0].tolist()), "last": plain(out[-1].tolist())})  # fmt: skip
    return cases


GOLDEN = {"labels": judged, "several": classified, "number": classified, "rank": ranked, "tags": tagged,
          "answers": answered, "masks": filled, "states": states}  # fmt: skip


def plain(value: Any) -> Any:
    """As JSON has it, numbers with six digits."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(f"{value:.6g}") if hasattr(value, "__float__") and not isinstance(value, int | str) else value


def all_names() -> list[str]:
    old = transformers.__version__.startswith("4.")
    return [
        f"{family}_{kind}"
        for family in FAMILIES
        for kind in KINDS
        if (kind == "answers") == old and (family, kind) not in WITHOUT and (family == "bert" or kind not in ONCE)
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    for chosen in sys.argv[1:] or all_names():
        make(*chosen.rsplit("_", 1))
