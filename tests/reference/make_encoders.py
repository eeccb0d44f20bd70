"""Write tests/encoders/*.json: for each class a tiny config, the tensors that transformers saves, and what it computes.

Needs torch and transformers, and is run by hand when a class is added: ``python tests/reference/make_encoders.py
[name ...]``. The weights are those of ``tests/encoders.py``, which the tests draw again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))
import encoders  # noqa: E402

VOCAB = 264
TEXTS = ("Shall I compare thee to a summer's day?", "Rough winds!")
TINY = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64}  # fmt: skip
DISTIL = {"vocab_size": VOCAB, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
MODERN = {**TINY, **TOKENS, "num_hidden_layers": 4, "local_attention": 8, "cls_token_id": 0, "sep_token_id": 2}
T5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2,
      "num_heads": 4, "decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
# As many labels that text order (0, 1, 10, 2) is not the order of the numbers.
LABELS = {"id2label": {index: f"kind {index}" for index in range(11)}, "num_labels": 11}
THREE = {"id2label": {0: "bad", 1: "so so", 2: "good"}}
FUSED = {"use_sliding_window": False}


@dataclass(frozen=True)
class Spec:
    """files: beside the checkpoint. more: tensors in other folders. written, added: what older saves have otherwise in
    the config (null: not at all), and of tensors. centred: norms multiply with one more than they store."""

    kind: str
    config: dict[str, Any]
    files: dict[str, Any] = field(default_factory=dict)
    more: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    added: dict[str, list[int]] = field(default_factory=dict)
    centred: bool = False


def sentence(pooling: str, width: int) -> dict[str, Any]:
    module = "sentence_transformers.models."
    parts = ("Transformer", "Pooling", "Dense", "Normalize")
    return {
        "modules.json": [
            {"idx": index, "name": str(index), "path": f"{index}_{part}" if index else "", "type": module + part}
            for index, part in enumerate(parts)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width, f"pooling_mode_{pooling}": True},
        "2_Dense/config.json": {"in_features": width, "out_features": 20, "bias": True,
                                "activation_function": "torch.nn.modules.activation.Tanh"},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "": ""}, "default_prompt_name": None},
        "sentence_bert_config.json": {"max_seq_length": 48, "do_lower_case": False},
    }  # fmt: skip


DENSE = {"2_Dense/model.safetensors": {"linear.weight": [20, 32], "linear.bias": [20]}}
SPECS: dict[str, Spec] = {
    "bert": Spec("BertModel", TINY),
    "bert_sentence": Spec("BertModel", TINY, sentence("mean_tokens", 32), DENSE),
    "bert_classifier": Spec("BertForSequenceClassification", {**TINY, **LABELS}),
    "bert_choice": Spec("BertForMultipleChoice", TINY),
    "bert_tagger": Spec("BertForTokenClassification", {**TINY, **THREE}),
    "bert_answers": Spec("BertForQuestionAnswering", TINY),
    "bert_masked": Spec("BertForMaskedLM", TINY),
    "electra": Spec("ElectraModel", {**TINY, "embedding_size": 32}),
    "electra_classifier": Spec("ElectraForSequenceClassification", {**TINY, **THREE, "embedding_size": 32}),
    "electra_replaced": Spec("ElectraForPreTraining", {**TINY, "embedding_size": 32}),
    "electra_masked": Spec("ElectraForMaskedLM", {**TINY, "embedding_size": 32}),
    "roberta": Spec("RobertaModel", {**TINY, **TOKENS}),
    "roberta_classifier": Spec(
        "RobertaForSequenceClassification", {**TINY, **TOKENS, **THREE, "problem_type": "multi_label_classification"}
    ),
    "roberta_choice": Spec("RobertaForMultipleChoice", {**TINY, **TOKENS}),
    "roberta_masked": Spec("RobertaForMaskedLM", {**TINY, **TOKENS, "type_vocab_size": 1}),
    "xlm_roberta_classifier": Spec("XLMRobertaForSequenceClassification", {**TINY, **TOKENS, "num_labels": 1}),
    "camembert": Spec("CamembertModel", {**TINY, **TOKENS}),
    "distilbert": Spec("DistilBertModel", DISTIL),
    "distilbert_classifier": Spec("DistilBertForSequenceClassification", {**DISTIL, **THREE}),
    "distilbert_answers": Spec("DistilBertForQuestionAnswering", DISTIL),
    "distilbert_masked": Spec("DistilBertForMaskedLM", DISTIL),
    "modernbert": Spec("ModernBertModel", MODERN),
    "modernbert_classifier": Spec("ModernBertForSequenceClassification", {**MODERN, **THREE}),
    "modernbert_mean": Spec(
        "ModernBertForSequenceClassification", {**MODERN, "classifier_pooling": "mean", "global_attn_every_n_layers": 2}
    ),
    "modernbert_biased": Spec("ModernBertForSequenceClassification", {**MODERN, "classifier_bias": True}),
    "modernbert_tagger": Spec("ModernBertForTokenClassification", {**MODERN, **THREE}),
    "modernbert_masked": Spec("ModernBertForMaskedLM", MODERN),
    "nomic_bert": Spec("NomicBertModel", TINY),
    "nomic_bert_classifier": Spec("NomicBertForSequenceClassification", {**TINY, **THREE}),
    "bert_pretraining": Spec("BertForPreTraining", TINY),
    "distilbert_choice": Spec("DistilBertForMultipleChoice", DISTIL),
    "distilbert_tagger": Spec("DistilBertForTokenClassification", {**DISTIL, **THREE}),
    "electra_tagger": Spec("ElectraForTokenClassification", {**TINY, **THREE, "embedding_size": 32}),
    "electra_answers": Spec("ElectraForQuestionAnswering", {**TINY, "embedding_size": 32}),
    "roberta_tagger": Spec("RobertaForTokenClassification", {**TINY, **TOKENS, **THREE}),
    "roberta_answers": Spec("RobertaForQuestionAnswering", {**TINY, **TOKENS}),
    "xlm_roberta": Spec("XLMRobertaModel", {**TINY, **TOKENS}),
    "xlm_roberta_choice": Spec("XLMRobertaForMultipleChoice", {**TINY, **TOKENS}),
    "xlm_roberta_tagger": Spec("XLMRobertaForTokenClassification", {**TINY, **TOKENS, **THREE}),
    "xlm_roberta_answers": Spec("XLMRobertaForQuestionAnswering", {**TINY, **TOKENS}),
    "xlm_roberta_masked": Spec("XLMRobertaForMaskedLM", {**TINY, **TOKENS}),
    "camembert_classifier": Spec("CamembertForSequenceClassification", {**TINY, **TOKENS, **THREE}),
    "camembert_masked": Spec("CamembertForMaskedLM", {**TINY, **TOKENS}),
    "modernbert_answers": Spec("ModernBertForQuestionAnswering", MODERN),
    "nomic_bert_tagger": Spec("NomicBertForTokenClassification", {**TINY, **THREE}),
    "nomic_bert_masked": Spec("NomicBertForMaskedLM", TINY),
    "mt5_encoder": Spec("MT5EncoderModel", T5),
    "gemma_embedding": Spec(
        "Gemma3TextModel",
        {
            **TINY,
            **TOKENS,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "sliding_window": 8,
            "query_pre_attn_scalar": 8,
            "use_bidirectional_attention": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        sentence("mean_tokens", 32),
        DENSE,
        centred=True,
    ),
    "llama_score": Spec("LlamaForSequenceClassification", {**TINY, **TOKENS, **THREE}),
    "llama_tagger": Spec("LlamaForTokenClassification", {**TINY, **TOKENS, **THREE}),
    "qwen2_bare": Spec("Qwen2Model", {**TINY, **TOKENS, "num_key_value_heads": 2, **FUSED}),
    "qwen3_score": Spec(
        "Qwen3ForSequenceClassification",
        {**TINY, **TOKENS, "num_labels": 1, "num_key_value_heads": 2, "head_dim": 12, **FUSED},
    ),
    "gpt2_score": Spec(
        "GPT2ForSequenceClassification",
        {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **TOKENS, **THREE},
    ),
    "t5": Spec("T5ForConditionalGeneration", T5),
    "t5_gated": Spec(
        "T5ForConditionalGeneration",
        {**T5, "num_decoder_layers": 1, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "flan_t5": Spec(
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu"},
        written={"tie_word_embeddings": False, "scale_decoder_outputs": None},
        added={"lm_head.weight": [VOCAB, 32]},
    ),
    "mt5": Spec("MT5ForConditionalGeneration", T5),
    "umt5": Spec("UMT5ForConditionalGeneration", T5),
    "t5_encoder": Spec("T5EncoderModel", T5),
    "umt5_encoder": Spec("UMT5EncoderModel", T5),
}


def make(name: str, spec: Spec) -> None:
    settings = getattr(transformers, spec.kind).config_class(**spec.config)
    torch.manual_seed(0)
    recipe: dict[str, Any] = {
        "files": spec.files,
        "more_tensors": spec.more,
        **({"centred": True} if spec.centred else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, spec.kind)(settings).save_pretrained(folder)
        recipe["config"] = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            recipe["tensors"] = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    recipe["config"] = {
        k: v for k, v in {**recipe["config"], **spec.written}.items() if k not in spec.written or v is not None
    }
    recipe["tensors"] |= spec.added
    with tempfile.TemporaryDirectory() as folder:
        encoders.write(Path(folder), recipe)
        model, info = getattr(transformers, spec.kind).from_pretrained(folder, output_loading_info=True)
        if any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            raise SystemExit(f"{name}: {info}")
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        recipe["golden"] = [golden(model.eval(), tokenizer.encode(text).ids, Path(folder), spec) for text in TEXTS]
    (TESTS / "encoders" / f"{name}.json").write_text(json.dumps(recipe) + "\n")
    sys.stdout.write(f"{name}: {len(recipe['tensors'])} tensors\n")


def golden(model: Any, ids: list[int], folder: Path, spec: Spec) -> dict[str, Any]:
    one = torch.tensor([ids])
    with torch.no_grad():
        if "ConditionalGeneration" in spec.kind:
            later = [1, 40, 50, 60]
            logits = model(input_ids=one, decoder_input_ids=torch.tensor([later])).logits[0, -1]
            return {"ids": ids, "later": later, "logits": rounded(logits)}
        if spec.kind.endswith("MultipleChoice"):
            return {"ids": ids, "logits": rounded(model(one[None]).logits[0])}
        out = model(input_ids=one)
    if spec.files:
        return {"ids": ids, "embedding": rounded(embedding(out.last_hidden_state[0], folder))}
    if "last_hidden_state" in out:
        return {"ids": ids, "states": rounded(out.last_hidden_state[0])}
    if "start_logits" in out:
        return {"ids": ids, "logits": rounded(torch.stack([out.start_logits[0], out.end_logits[0]], -1))}
    logits = (out.prediction_logits if "prediction_logits" in out else out.logits)[0]
    if spec.kind == "ElectraForPreTraining":
        logits = logits[:, None]
    return {"ids": ids, "logits": rounded(logits)}


def embedding(states: torch.Tensor, folder: Path) -> torch.Tensor:
    """Mean, dense, tanh, normalise: what sentence-transformers computes of the modules of :func:`sentence`."""
    with safe_open(folder / "2_Dense" / "model.safetensors", "pt") as file:
        weight, bias = file.get_tensor("linear.weight"), file.get_tensor("linear.bias")
    return torch.nn.functional.normalize(torch.tanh(weight @ states.mean(0) + bias), dim=-1)


def rounded(tensor: torch.Tensor) -> Any:
    def shorten(value: Any) -> Any:
        return [shorten(item) for item in value] if isinstance(value, list) else float(f"{value:.6g}")

    return shorten(tensor.tolist())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or SPECS:
        make(chosen, SPECS[chosen])
