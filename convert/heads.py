"""What stands on top of a model: classifiers, taggers, answer finders, masked language models.

llama.cpp has a place for few of them and computes some of those wrongly, so a head is stored whole as metadata
(``ingle.head.*``), which llama.cpp ignores; ``runtime/tasks/head.py`` runs it on the states of the tokens. Where
llama.cpp computes the same, its own tensors (``cls``, ``cls.norm``, ``cls.output``) are written, too.

A head is a list of steps: linear layers, norms and activations by name; ``@key`` stands for the activation that the
config has there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .config import Config

Pooling = Literal["first", "mean", "last", "max", "each"]
"""Which state of a text the steps begin with: one for the whole text, or that of each token."""

SEQUENCE, TOKENS, ANSWER, MASK, CHOICE, REPLACED, FEATURES, RELEVANCE = (
    "sequence-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "multiple-choice",
    "replaced-token-detection",
    "feature-extraction",
    "relevance",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One layer (``linear``, ``norm``), an activation, ``normalize``, or ``margin``: the first of two by the second.

    layer: its name in the file. source: its name in the checkpoint, without ``.weight``. native: llama.cpp's tensor
    that holds it. biased: whether it has a bias, or the config key that says so. bias: where the bias is, if not beside
    the weight. tied: the weight is the token embedding, unless the config says otherwise.
    """

    kind: str
    layer: str = ""
    source: str = ""
    native: str = ""
    biased: bool | str = True
    bias: str = ""
    tied: bool = False

    def has_bias(self, config: Config) -> bool:
        return config.flag(self.biased) if isinstance(self.biased, str) else self.biased


@dataclass(frozen=True, slots=True)
class Head:
    """``native``: whether llama.cpp computes it, given the config; then the pooling is llama.cpp's, too."""

    task: str
    pooling: Pooling | Callable[[Config], Pooling]
    steps: tuple[Step, ...]
    native: Callable[[Config], bool] = lambda config: False

    def input(self, config: Config) -> Pooling:
        return self.pooling(config) if callable(self.pooling) else self.pooling


def linear(layer: str, source: str, native: str = "", biased: bool | str = True) -> Step:
    return Step("linear", layer, source, native, biased)


def norm(layer: str, source: str, native: str = "", biased: bool | str = True) -> Step:
    return Step("norm", layer, source, native, biased)


def decoder(source: str, bias: str = "", biased: bool | str = True) -> Step:
    """The tokens' logits: the embedding once more, or a matrix of its own, and a bias of the size of the vocabulary."""
    return Step("linear", "decoder", source, biased=biased, bias=bias, tied=True)


def _always(config: Config) -> bool:
    return True


def _bert(stem: str, root: str) -> dict[str, Head]:
    """A tanh pooler over the first token, then the classifier, as BERT's own."""
    pooled = (linear("dense", f"{root}.pooler.dense", "cls"), Step("tanh"), linear("out", "classifier", "cls.output"))
    return {
        f"{stem}ForSequenceClassification": Head(SEQUENCE, "first", pooled, _always),
        f"{stem}ForMultipleChoice": Head(CHOICE, "first", pooled, _always),
        **_per_token(stem),
    }


def _per_token(stem: str) -> dict[str, Head]:
    return {
        f"{stem}ForTokenClassification": Head(TOKENS, "each", (linear("out", "classifier"),)),
        f"{stem}ForQuestionAnswering": Head(ANSWER, "each", (linear("out", "qa_outputs"),)),
    }


def _masked(norm_name: str) -> tuple[Step, ...]:
    """BERT's masked language model: transform, activation, norm, decoder."""
    root = "cls.predictions"
    return (
        linear("dense", f"{root}.transform.dense"),
        Step("@hidden_act"),
        norm("norm", f"{root}.transform.{norm_name}"),
        decoder(f"{root}.decoder", f"{root}.bias"),
    )


def _roberta(stem: str) -> dict[str, Head]:
    """RoBERTa has its pooler inside the classifier, except for multiple choice; its dense layers end in out_proj."""
    classifier = (
        linear("dense", "classifier.dense", "cls"),
        Step("tanh"),
        linear("out", "classifier.out_proj", "cls.output"),
    )
    masked = (
        linear("dense", "lm_head.dense"),
        Step("gelu"),
        norm("norm", "lm_head.layer_norm"),
        decoder("lm_head.decoder", "lm_head.bias"),
    )
    return {
        **_bert(stem, "roberta"),
        f"{stem}ForSequenceClassification": Head(SEQUENCE, "first", classifier, _always),
        f"{stem}ForMaskedLM": Head(MASK, "each", masked),
    }


def _distilbert() -> dict[str, Head]:
    """The classifier's activation is ReLU, where llama.cpp's graph has tanh."""
    pooled = (linear("dense", "pre_classifier"), Step("relu"), linear("out", "classifier"))
    masked = (
        linear("dense", "vocab_transform"),
        Step("@hidden_act"),
        norm("norm", "vocab_layer_norm"),
        decoder("vocab_projector"),
    )
    return {
        "DistilBertForSequenceClassification": Head(SEQUENCE, "first", pooled),
        "DistilBertForMultipleChoice": Head(CHOICE, "first", pooled),
        "DistilBertForMaskedLM": Head(MASK, "each", masked),
        **_per_token("DistilBert"),
    }


def _electra() -> dict[str, Head]:
    """GELU everywhere, where llama.cpp's graph of BERT has tanh."""
    pooled = (linear("dense", "classifier.dense"), Step("gelu"), linear("out", "classifier.out_proj"))
    masked = (
        linear("dense", "generator_predictions.dense"),
        Step("gelu"),
        norm("norm", "generator_predictions.LayerNorm"),
        decoder("generator_lm_head"),
    )
    replaced = (
        linear("dense", "discriminator_predictions.dense"),
        Step("@hidden_act"),
        linear("out", "discriminator_predictions.dense_prediction"),
    )
    return {
        "ElectraForSequenceClassification": Head(SEQUENCE, "first", pooled),
        "ElectraForMaskedLM": Head(MASK, "each", masked),
        "ElectraForPreTraining": Head(REPLACED, "each", replaced),
        **_per_token("Electra"),
    }


def _modernbert() -> dict[str, Head]:
    """One prediction head (dense, activation, norm) below every classifier."""
    head = (
        linear("dense", "head.dense", "cls", biased="classifier_bias"),
        Step("@classifier_activation"),
        norm("norm", "head.norm", "cls.norm", biased="norm_bias"),
    )
    each = (*head, linear("out", "classifier"))
    return {
        "ModernBertForSequenceClassification": Head(
            SEQUENCE, _classifier_pooling, (*head, linear("out", "classifier", "cls.output")), _plain_gelu
        ),
        "ModernBertForTokenClassification": Head(TOKENS, "each", each),
        "ModernBertForQuestionAnswering": Head(ANSWER, "each", each),
        "ModernBertForMaskedLM": Head(MASK, "each", (*head, decoder("decoder", biased="decoder_bias"))),
    }


def _classifier_pooling(config: Config) -> Pooling:
    return "mean" if config.get("classifier_pooling", "cls") == "mean" else "first"


def _plain_gelu(config: Config) -> bool:
    biased = config.flag("classifier_bias") or config.flag("norm_bias")
    return not biased and config.get("classifier_activation", "gelu") == "gelu"


def _nomic() -> dict[str, Head]:
    pooled = (linear("dense", "nomic_bert.pooler.dense"), Step("tanh"), linear("out", "classifier"))
    return {
        "NomicBertForSequenceClassification": Head(SEQUENCE, "first", pooled),
        "NomicBertForTokenClassification": Head(TOKENS, "each", (linear("out", "classifier"),)),
        "NomicBertForMaskedLM": Head(MASK, "each", _masked("layer_norm")),
    }


ROBERTAS = ("Roberta", "XLMRoberta", "Camembert")
HEADS: Mapping[str, Head] = {
    **_bert("Bert", "bert"),
    "BertForMaskedLM": Head(MASK, "each", _masked("LayerNorm")),
    "BertForPreTraining": Head(MASK, "each", _masked("LayerNorm")),
    **{name: head for stem in ROBERTAS for name, head in _roberta(stem).items()},
    **_distilbert(),
    **_electra(),
    **_modernbert(),
    **_nomic(),
}
"""The head of each encoder class."""

DECODER_HEADS: Mapping[str, Head] = {
    "ForSequenceClassification": Head(SEQUENCE, "last", (linear("out", "score", biased=False),)),
    "ForTokenClassification": Head(TOKENS, "each", (linear("out", "score"),)),
}
"""The head of a decoder, by the end of the class's name."""


def find(name: str) -> Head | None:
    """The head of a class of transformers; None for one that gives states or next tokens."""
    decoders = (head for end, head in DECODER_HEADS.items() if name.endswith(end))
    return HEADS.get(name) or next(decoders, None)


def classes(stems: Iterable[str]) -> tuple[str, ...]:
    """The classes with a head whose names begin with one of ``stems``."""
    return tuple(name for name in HEADS for stem in stems if name.startswith(f"{stem}For"))
