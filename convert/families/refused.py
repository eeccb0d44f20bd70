"""Architectures that are known, and why they cannot be converted."""

from __future__ import annotations

from collections.abc import Mapping

NO_GRAPH = "llama.cpp has no graph for it"
REASONS: Mapping[str, str] = {
    "Albert": "it has a projection behind the embedding's norm, and one layer used many times; " + NO_GRAPH,
    "MPNet": "each of its attentions has a bias by relative position; " + NO_GRAPH,
    "Deberta": "its attention works on content and relative positions apart; " + NO_GRAPH,
    "MobileBert": "its layers have bottlenecks; " + NO_GRAPH,
    "Longformer": "its attention is sparse; " + NO_GRAPH,
    "BigBird": "its attention is sparse; " + NO_GRAPH,
    "XLNet": NO_GRAPH,
    "Funnel": NO_GRAPH,
    "MBart": "an encoder-decoder with learned positions; " + NO_GRAPH,
    "Bart": "an encoder-decoder with learned positions; " + NO_GRAPH,
    "Marian": "an encoder-decoder with sinusoidal positions; " + NO_GRAPH,
    "Pegasus": "an encoder-decoder with sinusoidal positions; " + NO_GRAPH,
    "M2M100": "an encoder-decoder with sinusoidal positions; " + NO_GRAPH,
    "Blenderbot": "an encoder-decoder with learned positions; " + NO_GRAPH,
    "LongT5": "its attention is local; " + NO_GRAPH,
    "SwitchTransformers": "a T5 with experts; " + NO_GRAPH,
    "JinaBert": "its code is in its repository only, so a conversion could not be proven against transformers",
}
"""By the beginning of the class's name."""


def reason(name: str) -> str:
    """Why a class or model type cannot be converted; empty for one that nobody has looked at."""
    plain = name.replace("-", "").replace("_", "").lower()
    return next((why for stem, why in REASONS.items() if plain.startswith(stem.lower())), "")
