"""Architectures that are known, and why they cannot be converted."""

from __future__ import annotations

from collections.abc import Mapping

NO_GRAPH = "llama.cpp has no graph for it"
UNDESCRIBED = "llama.cpp has a graph for it, and nobody has described it here yet (docs/adding-a-model.md says how)"
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
    "NeoBERT": "its code is in its repository only, so a conversion could not be proven against transformers",
    "Baichuan": "its code is in its repository only, so a conversion could not be proven against transformers",
    "ChatGLM": "its code is in its repository only, so a conversion could not be proven against transformers",
    "InternLM2": "its code is in its repository only, so a conversion could not be proven against transformers",
    "Plamo": "its code is in its repository only, so a conversion could not be proven against transformers",
    "Orion": "its code is in its repository only, so a conversion could not be proven against transformers",
    "Xverse": "its code is in its repository only, so a conversion could not be proven against transformers",
    "Rwkv": "RWKV has a vocabulary of its own kind, which our tokenizer reader does not know",
    "GPTNeoForCausalLM": "its attention is local in every other layer; " + NO_GRAPH,
    "GPTJ": NO_GRAPH,
    "CodeGen": NO_GRAPH,
    "OPT": "an embedding that is projected, and positions with an offset; " + NO_GRAPH,
    "BioGpt": NO_GRAPH,
    "XGLM": NO_GRAPH,
    "CTRL": NO_GRAPH,
    "Persimmon": NO_GRAPH,
    "RecurrentGemma": NO_GRAPH,
    "Zamba": NO_GRAPH,
    "XLMForCausalLM": NO_GRAPH,
    "XLMWithLMHead": NO_GRAPH,
    "RemBert": "its embedding is projected; " + NO_GRAPH,
    "Reformer": NO_GRAPH,
    "Whisper": "a model of speech; " + NO_GRAPH,
    **dict.fromkeys(
        (
            "Apertus", "Arctic", "AfmoeForCausalLM", "BitNet", "Cohere2Moe", "Dbrx", "DeepseekV32", "DeepseekV4",
            "EuroBert", "ExaoneForCausalLM", "ExaoneMoe", "FalconH1", "Gemma3n", "Glm4MoeLite", "GlmMoeDsa",
            "GraniteMoeHybrid", "Grok1", "HunYuanMoE", "Jamba", "JinaEmbeddingsV3", "KimiLinear", "Llama4", "MiniCPM",
            "MiniMax", "MiMoV2", "Mistral4", "NemotronH", "Phimoe", "Step3p5",
        ),
        UNDESCRIBED,
    ),
}  # fmt: skip
"""By the beginning of the class's name."""


def reason(name: str) -> str:
    """Why a class or model type cannot be converted; empty for one that nobody has looked at."""
    plain = name.replace("-", "").replace("_", "").lower()
    return next((why for stem, why in REASONS.items() if plain.startswith(stem.lower())), "")
