"""What llama.cpp's loader demands of a file, so that a file it would refuse, or die of, is never written.

The keys were found by taking each one out of a file of each architecture and loading what was left; the tests repeat
that for every key of the table. What else is here are assertions of the loader, which end the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .gguf import TensorPlan, Value
from .metadata import NAMES_WITH_EFFECT
from .report import Item

MOST_LAYERS, MOST_EXPERTS = 512, 1024
MOST_NAME_BYTES, MOST_DIMENSIONS = 63, 4
ALWAYS = ("block_count", "context_length", "embedding_length")
RMS_NORM, LAYER_NORM = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"
EXPERT_SIZE, SHARED_COUNT = "expert_feed_forward_length", "expert_shared_count"
WINDOW = "attention.sliding_window"
STATE = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank")
GROUPED_STATE = (*STATE, "ssm.group_count")
# Of these the loader wants the other kind of norm.
LAYER_NORMED = frozenset({
    "bert", "bloom", "cohere2", "command-r", "falcon", "gpt2", "gptneox", "jais2", "modern-bert", "mpt", "nemotron",
    "nomic-bert", "olmo", "phi2", "stablelm", "starcoder", "starcoder2",
})  # fmt: skip
RMS_NORMED = frozenset({
    "arcee", "chatglm", "deepseek2", "dots1", "ernie4_5", "ernie4_5-moe", "exaone4", "gemma", "gemma-embedding",
    "gemma2", "gemma3", "gemma4", "glm4", "glm4moe", "gpt-oss", "granite", "granitemoe", "hunyuan-dense", "lfm2",
    "lfm2moe", "llama", "mamba", "mamba2", "mistral3", "olmo2", "olmoe", "phi3", "qwen2", "qwen2moe", "qwen2vl",
    "qwen3", "qwen35", "qwen35moe", "qwen3moe", "qwen3next", "seed_oss", "smollm3", "t5", "t5encoder",
})  # fmt: skip
OWN: Mapping[str, tuple[str, ...]] = {
    "cohere2": ("logit_scale", WINDOW),
    "deepseek2": ("attention.kv_lora_rank", EXPERT_SIZE, SHARED_COUNT),
    "dots1": (EXPERT_SIZE, SHARED_COUNT),
    "ernie4_5-moe": (EXPERT_SIZE, "interleave_moe_layer_step"),
    "gemma4": (
        WINDOW, "attention.sliding_window_pattern", "embedding_length_per_layer_input", "attention.key_length_swa",
        "attention.value_length_swa",
    ),
    "gemma-embedding": (WINDOW,),
    "glm4moe": (EXPERT_SIZE, SHARED_COUNT),
    "gpt-oss": (EXPERT_SIZE, WINDOW),
    "gptneox": ("use_parallel_residual",),
    "granite": ("logit_scale",),
    "granitemoe": ("logit_scale",),
    "lfm2": ("shortconv.l_cache",),
    "lfm2moe": ("shortconv.l_cache", EXPERT_SIZE, "expert_gating_func"),
    "mamba": STATE,
    "mamba2": GROUPED_STATE,
    "qwen2vl": ("rope.dimension_sections",),
    "qwen35": (*GROUPED_STATE, "rope.dimension_sections"),
    "qwen35moe": (*GROUPED_STATE, "rope.dimension_sections"),
    "qwen3next": GROUPED_STATE,
    "t5": ("attention.relative_buckets_count",),
    "t5encoder": ("attention.relative_buckets_count",),
}  # fmt: skip
"""Keys of one architecture that the loader does not do without, but for the norm's epsilon."""
WHOLE_HEAD = frozenset({"llama", "falcon"})
"""Architectures whose heads must be rotated whole."""
TOKENS = "tokenizer.ggml.tokens"
VOCABULARY = ("tokenizer.ggml.model", TOKENS)


def required(arch: str) -> tuple[str, ...]:
    """The keys that llama.cpp does not load an architecture without, without its prefix; empty for an unknown one."""
    if arch not in LAYER_NORMED | RMS_NORMED:
        return ()
    return (*ALWAYS, LAYER_NORM if arch in LAYER_NORMED else RMS_NORM, *OWN.get(arch, ()))


def breaches(metadata: Mapping[str, Value], plans: Sequence[TensorPlan]) -> Iterator[Item]:
    """What the loader would refuse in a file of these keys and tensors."""
    arch = str(metadata.get("general.architecture"))
    keys = required(arch)
    if not keys:
        yield _breach(f"nobody has said what llama.cpp requires of {arch!r}")
    missing = [key for key in (*(f"{arch}.{key}" for key in keys), *VOCABULARY) if key not in metadata]
    if missing:
        yield _breach(f"llama.cpp does not load {arch} without {', '.join(missing)}")
        return
    own = {key.removeprefix(f"{arch}."): value for key, value in metadata.items() if key.startswith(f"{arch}.")}
    yield from _layers(own)
    yield from _experts(own)
    yield from _heads(arch, own)
    yield from _vocabulary(metadata, plans)
    yield from _names(plans)
    if NAMES_WITH_EFFECT.search(str(metadata.get("general.name", ""))):
        yield _breach(f"llama.cpp reads an instruction out of general.name {metadata['general.name']!r}")


def _layers(own: Mapping[str, Value]) -> Iterator[Item]:
    count = _number(own["block_count"])
    if not 0 < count <= MOST_LAYERS:
        yield _breach(f"{count} layers, where llama.cpp has room for {MOST_LAYERS}")
    for key in ("feed_forward_length", "attention.head_count", "attention.head_count_kv", EXPERT_SIZE):
        value = own.get(key)
        if isinstance(value, np.ndarray) and len(value) != count:
            yield _breach(f"{key} has {len(value)} entries for {count} layers")


def _experts(own: Mapping[str, Value]) -> Iterator[Item]:
    count, used = _number(own.get("expert_count", 0)), _number(own.get("expert_used_count", 0))
    groups, chosen = _number(own.get("expert_group_count", 0)), _number(own.get("expert_group_used_count", 0))
    if count > MOST_EXPERTS:
        yield _breach(f"{count} experts, where llama.cpp has room for {MOST_EXPERTS:,}")
    if used > count or (used > 0) != (count > 0):
        yield _breach(f"{used} of {count} experts cannot be used")
    if groups > 1 and not (groups < count and count % groups == 0 and 0 < chosen < groups):
        yield _breach(f"{chosen} of {groups} groups of {count} experts cannot be used")


def _heads(arch: str, own: Mapping[str, Value]) -> Iterator[Item]:
    heads = own.get("attention.head_count", 0)
    if arch in WHOLE_HEAD and not isinstance(heads, np.ndarray) and _number(heads):
        size = _number(own.get("attention.key_length", _number(own["embedding_length"]) // _number(heads)))
        rotated = _number(own.get("rope.dimension_count", size))
        if rotated != size:
            yield _breach(f"{rotated} of the {size} elements of a head are rotated: {arch} rotates all")


def _vocabulary(metadata: Mapping[str, Value], plans: Sequence[TensorPlan]) -> Iterator[Item]:
    tokens: Any = metadata[TOKENS]
    text, count = Counter(tokens).most_common(1)[0] if tokens else ("", 1)
    if count > 1:
        yield _breach(f"{count} tokens have the text {text!r}: llama.cpp ends the process over that")
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        value: Any = metadata.get(key)
        if value is not None and len(value) != len(tokens):
            yield _breach(f"{key} has {len(value)} entries for {len(tokens):,} tokens")
    for plan in plans:
        if plan.name == "token_embd.weight" and plan.shape[0] != len(tokens):
            yield _breach(f"the embedding has {plan.shape[0]:,} rows for {len(tokens):,} tokens")


def _names(plans: Sequence[TensorPlan]) -> Iterator[Item]:
    for plan in plans:
        if len(plan.name.encode()) > MOST_NAME_BYTES or not 0 < len(plan.shape) <= MOST_DIMENSIONS:
            yield _breach(f"llama.cpp has no tensor {plan.name} of {len(plan.shape)} dimensions")


def _number(value: Value) -> int:
    if isinstance(value, np.ndarray):
        return int(value.max(initial=0))
    return int(value) if isinstance(value, int | float | np.number) else 0


def _breach(detail: str) -> Item:
    return Item("contract", "fail", detail, "please report the checkpoint: the file would not load")
