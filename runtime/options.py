"""What is decided once, when a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FlashAttention = Literal["auto", "on", "off"]
Repack = Literal["auto", "on", "off"]
Speculate = Literal["auto", "off"]
Isolation = Literal["thread", "process"]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter as GGUF, and how strongly it counts: 1 is as it was trained."""

    path: str
    scale: float = 1.0

    @property
    def name(self) -> str:
        """What requests call it: the file's name without its ending."""
        return Path(self.path).name.removesuffix(".gguf")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded. ``None`` means: chosen from the model and this machine, and reported in ``ModelInfo``.

    context_length: tokens of prompt and answer together that one request may use.
    kv_cells: tokens that all running requests and the prefix cache hold together.
    parallel: requests that decode at the same time; more wait in the queue.
    max_queue: requests that may wait; one more is refused with ``QueueFull``.
    prefill_chunk: most prompt tokens read in one step; bounds how long a running stream stalls.
    itl_target_s: how long a running stream may wait for a token because of a prompt, up to twice that where 192 rows of
    the prompt need it; 0 is as long as it takes.
    threads, threads_prefill: CPU threads of a decode step and of a step that reads a prompt; fewer while other
    processes want the same cores, where both are the same.
    gpu_layers: layers to offload; -1 is all. A build without GPU support warns and uses none.
    kv_type: element type of the KV cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl.
    cache_ram_bytes: of ordinary memory, for finished conversations that left the KV cache.
    cache_disk_bytes: for finished conversations on disk, which outlive the process; 0 keeps none. They are what was
    said, in a folder that only this user can read (``ingle/kv`` in the XDG cache folder).
    rest_after_s: idle time after which the cache is given back; the next request, which has it made anew, takes some
    milliseconds longer. 0 keeps it.
    mmproj: projector file of a vision model, where it is not the one that the model was converted or fetched with.
    repack: lay the weights out anew for the CPU; "auto" measures whether that pays, once per machine and file.
    speculate: compute tokens that the text foretells beside the next one, where measurement says that it pays.
    draft: a small model of the same vocabulary, which foretells tokens where the text does not, and where measurement
    says that it pays: a name for ``Model.load``, the path of a GGUF file for an engine.
    adapters: loaded beside the model; a request that names none is answered with all of them together.
    sampling: temperature, top_k, top_p or min_p for requests that leave them open, in place of the model's own.
    """

    context_length: int | None = None
    kv_cells: int | None = None
    parallel: int = 16
    max_queue: int = 64
    prefill_chunk: int = 256
    itl_target_s: float = 0.35
    threads: int | None = None
    threads_prefill: int | None = None
    gpu_layers: int = 0
    kv_type: str = "f16"
    flash_attention: FlashAttention = "auto"
    mmap: bool = True
    repack: Repack = "auto"
    prefix_cache: bool = True
    speculate: Speculate = "auto"
    cache_ram_bytes: int | None = None
    cache_disk_bytes: int = 0
    rest_after_s: float = 300.0
    mmproj: str | None = None
    draft: str | None = None
    adapters: tuple[AdapterFile, ...] = ()
    sampling: tuple[tuple[str, float], ...] = ()
