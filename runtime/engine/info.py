"""What is decided and known about a model when it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...convert import chat_template
from ...convert.gguf import Value
from .. import machine
from ..chat.conversation import special_tokens
from ..llama.context import ContextOptions
from ..llama.kernels import extra_buffers_work
from ..llama.library import supports_gpu_offload
from ..llama.metadata import integers
from ..llama.model import NativeModel
from ..options import LoadOptions
from ..request import LoadedAdapter, ModelInfo
from . import sampling, sizing
from .plan import LoadPlan
from .scheduler import Limits

CONTROL_TYPES = (2, 3)  # unknown, control: llama_token_type


def model_info(model: NativeModel, options: LoadOptions, plan: LoadPlan) -> ModelInfo:
    """Sizes, threads and texts of a model that was loaded by ``plan``."""
    sizes = plan.sizes
    threads = options.threads or machine.thread_count()
    end_tokens = model.vocab.end_tokens()
    return ModelInfo(
        name=model.name,
        path=str(model.path),
        architecture=model.architecture,
        parameters=model.parameters,
        size_bytes=model.size_bytes,
        vocabulary=model.vocab.size,
        context_trained=model.context_trained,
        context_length=sizes.window,
        context_reason=sizes.reason,
        kv_cells=sizes.cells,
        kv_bytes=plan.footprint.kv,
        flash_attention=plan.flash_attention,
        parallel=options.parallel,
        threads=threads,
        threads_prefill=options.threads_prefill or threads,
        gpu_layers=model.gpu_layers,
        repacked=plan.way.repack,
        footprint=plan.footprint,
        chat_templates=chat_template.from_metadata(model.metadata),
        special_tokens=special_tokens(model.metadata),
        eog_tokens=end_tokens,
        sampling=sampling.model_defaults(model.metadata, options.sampling),
        warnings=(*plan.warnings, *_warnings(options, model, sizes, end_tokens), *_adapter_warnings(model)),
        projector=options.mmproj or "",
        draft=options.draft or "",
        adapters=tuple(
            LoadedAdapter(name, str(adapter.path), adapter.scale, adapter.base_name)
            for name, adapter in model.adapters.items()
        ),
        control_tokens=control_tokens(model.metadata),
    )


def limits(info: ModelInfo, options: LoadOptions) -> Limits:
    """What the scheduler may use."""
    parked_bytes = options.cache_ram_bytes
    if parked_bytes is None:
        parked_bytes = sizing.parked_bytes(machine.available_memory_bytes())
    return Limits(
        cells=info.kv_cells,
        slots=info.parallel + sizing.IDLE_SLOTS,
        parallel=info.parallel,
        rows=max(options.prefill_chunk, info.parallel),
        parked_bytes=parked_bytes,
    )


def context_options(info: ModelInfo, options: LoadOptions, rows_together: int = 0) -> ContextOptions:
    """The native context that serves :func:`limits`, and pictures of ``rows_together`` rows."""
    bounds = limits(info, options)
    return ContextOptions(
        cells=bounds.cells,
        sequences=bounds.slots,
        rows=max(bounds.rows, rows_together),
        threads=info.threads,
        threads_prefill=info.threads_prefill,
        kv_type=options.kv_type,
        flash_attention=info.flash_attention,
        spare=options.cache_disk_bytes > 0,
    )


def core_groups(info: ModelInfo) -> list[set[int]]:
    """Cores for each thread of the kernels; none where they would not be the same threads in every step."""
    return machine.core_groups(info.threads) if info.threads == info.threads_prefill and info.threads > 1 else []


def control_tokens(metadata: Mapping[str, Value]) -> dict[str, int]:
    """Ids by text: what llama.cpp finds in a prompt's text only when it is told to parse control tokens."""
    texts, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(texts, list) or types is None:
        return {}
    kinds = integers(metadata, "tokenizer.ggml.token_type")
    return {text: token for token, (text, kind) in enumerate(zip(texts, kinds, strict=False)) if kind in CONTROL_TYPES}


def _warnings(
    options: LoadOptions, model: NativeModel, sizes: sizing.Sizes, end_tokens: tuple[int, ...]
) -> Iterator[str]:
    if options.gpu_layers and not supports_gpu_offload():
        yield (
            f"{options.gpu_layers} GPU layers were asked for, but this llama-cpp-python is built without GPU support: "
            "every layer runs on the CPU"
        )
    if not extra_buffers_work():
        yield (
            "the AMX kernels of this build of llama.cpp crash, so its fastest matrix products are not used: reinstall "
            "llama-cpp-python with CXXFLAGS='-fno-tree-dse -fno-dse' (and no cached wheel)"
        )
    if sizes.window > model.context_trained:
        yield (
            f"the context length {sizes.window} is beyond the {model.context_trained} tokens that the model was "
            "trained for"
        )
    if model.long_rope_after is not None and sizes.cells > model.long_rope_after:
        yield (
            f"with a cache of more than {model.long_rope_after} tokens llama.cpp uses this model's rope factors for "
            f"long texts in short ones, too, which transformers does not: --ctx {model.long_rope_after} avoids that"
        )
    if not end_tokens:
        yield "the file names no end-of-text token: an answer ends only at max_tokens or at the context window"


def _adapter_warnings(model: NativeModel) -> Iterator[str]:
    for name, adapter in model.adapters.items():
        if adapter.base_name and _letters(adapter.base_name) != _letters(model.name):
            yield (
                f"the adapter {name} was made for {adapter.base_name}, and this model calls itself {model.name}: with "
                "other weights than those it was trained on it does something else"
            )
        if adapter.ignored:
            yield (
                f"the adapter {name} has pairs for {len(adapter.ignored)} tensors that llama.cpp uses as they are "
                f"({adapter.ignored[0]}, ...): these change nothing"
            )


def _letters(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
