"""How large the KV cache is when nobody says: what the model was trained for, within a share of the memory."""

from __future__ import annotations

from dataclasses import dataclass

from ...convert import ggml
from ...convert.errors import InputError
from ..options import FlashAttention, LoadOptions

MEMORY_SHARE = 8
"""A window chosen by us takes at most one part in so many of the available memory."""

MIN_WINDOW = 2048
POOL_CELLS = 16_384
"""Room for several short conversations where the window alone would be small."""

MAX_PARKED_BYTES = 2 << 30
IDLE_SLOTS = 16
"""Finished conversations that stay in the KV cache at most (see ``PrefixCache``)."""

CELL_STEP = 256  # llama.cpp pads the cache to this
MAX_CELLS = 2**31 - CELL_STEP
MAX_PARALLEL = 128
MAX_THREADS = 512


@dataclass(frozen=True, slots=True)
class Sizes:
    """window: tokens of one request; cells: of all together; reason: why the window is what it is."""

    window: int
    cells: int
    reason: str


def choose(
    options: LoadOptions,
    context_trained: int,
    bytes_per_cell: int,
    available_bytes: int,
    long_rope_after: int | None = None,
    most_cells: int = MAX_CELLS,
) -> Sizes:
    """Sizes for a model of ``context_trained`` tokens whose cache takes ``bytes_per_cell`` a token, and which all else
    leaves room for a cache of ``most_cells``.

    ``long_rope_after``: a cache larger than this makes llama.cpp rotate every position by the factors for long texts;
    a window that fits below is not put into one.

    Raises:
        InputError: sizes that contradict each other or are out of range.
    """
    validate(options)
    affordable = min(most_cells, max(MIN_WINDOW, available_bytes // MEMORY_SHARE // max(1, bytes_per_cell)))
    window, reason = _window(options, context_trained, affordable)
    if options.kv_cells is not None:
        cells = options.kv_cells
    else:
        cells = max(window, min(options.parallel * window, POOL_CELLS, affordable))
        if long_rope_after is not None and window <= long_rope_after:
            cells = min(cells, long_rope_after)
    if cells < window:
        raise InputError(
            f"a KV cache of {cells} cells cannot hold one request of {window} tokens",
            hint="raise kv_cells, or lower the context length",
        )
    if cells > MAX_CELLS:
        raise InputError(f"a KV cache of {cells} cells is more than llama.cpp can count: {MAX_CELLS} at most")
    return Sizes(window, -(-cells // CELL_STEP) * CELL_STEP, reason)


def parked_bytes(available_bytes: int) -> int:
    """Memory for conversations that left the KV cache."""
    return min(MAX_PARKED_BYTES, available_bytes // MEMORY_SHARE)


def decided_flash_attention(options: LoadOptions) -> FlashAttention:
    """What the options leave of the choice: a quantized cache cannot do without flash attention, which rounds an f32
    cache to f16."""
    if options.flash_attention != "auto":
        return options.flash_attention
    if options.kv_type.lower() == "f32":
        return "off"
    return "on" if ggml.named(options.kv_type).block > 1 else "auto"


def flash_attention(
    options: LoadOptions,
    *,
    gpu_layers: int,
    cells: int,
    heads: int,
    available_bytes: int,
    fastest: FlashAttention = "auto",
    own: bool = False,
) -> FlashAttention:
    """Whether to use flash attention when nobody says. ``fastest`` is what was measured; ``own``: our attention can
    compute it, which takes the place of llama.cpp's flash attention and is faster than either way without.

    Without a measurement llama.cpp's is off on the CPU: on some machines it reads a single row against the cache two to
    three times slower than its matrix products do (docs/benchmarks.md). Without flash attention, the scores of a step
    need memory of their own, f32 of shape (heads, rows, cells). Beside a GPU the choice is llama.cpp's ("auto").
    """
    decided = decided_flash_attention(options)
    if gpu_layers and options.flash_attention == "auto":
        return "auto"
    if decided != "auto":
        return decided
    score_bytes = 4 * heads * max(options.prefill_chunk, options.parallel) * cells
    affordable = score_bytes <= available_bytes // MEMORY_SHARE
    wanted = fastest == "on" or (own and fastest == "auto" and options.kv_type.lower() == "f16")
    return "off" if affordable and not wanted else "on"


def validate(options: LoadOptions) -> None:
    """Raise :class:`InputError` for a number that is out of range."""
    for name, low, high in (
        ("parallel", 1, MAX_PARALLEL),
        ("max_queue", 0, 2**31),
        ("prefill_chunk", 1, 2**16),
        ("itl_target_s", 0, 3600),
        ("rest_after_s", 0, 2**31),
        ("cache_ram_bytes", 0, 2**63),
        ("cache_disk_bytes", 0, 2**63),
        ("threads", 1, MAX_THREADS),
        ("threads_prefill", 1, MAX_THREADS),
    ):
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}; it must be {low} to {high}")


def _window(options: LoadOptions, context_trained: int, affordable: int) -> tuple[int, str]:
    if options.context_length is not None:
        if options.context_length < 2:
            raise InputError(f"a context length of {options.context_length} has no room for a prompt and an answer")
        return options.context_length, "asked for"
    if options.kv_cells is not None and options.kv_cells < min(affordable, context_trained):
        return options.kv_cells, "as large as the cache that was asked for"
    if context_trained <= affordable:
        return context_trained, "all that the model was trained for"
    window = max(CELL_STEP, affordable // CELL_STEP * CELL_STEP)
    return window, f"the model was trained for {context_trained}, of which the memory of this machine allows {window}"
