"""A model without its weights: what it would take of the memory, from the header of its file alone.

llama.cpp lays its graph and its caches out without allocating them ("no_alloc"), so the figures are its own, for every
architecture: sliding windows, latent attention, recurrent layers and all. The file it reads for that is an outline:
the numbers of the architecture, no vocabulary, and a hole in place of the tensors.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...convert import gguf
from ...convert.errors import LoadFailed
from .context import ContextOptions, native_parameters
from .library import library, native_log
from .model import generates

MIB = 1 << 20
SEGMENTS = "tokenizer.ggml.token_type_count"
"""Of the vocabulary, what the tensors of an encoder depend on."""

_KV = re.compile(r"size = +([\d.]+) MiB \( *\d+ cells.*seqs\)")
_STATES = re.compile(r"size = +([\d.]+) MiB .*rs_seq")
_COMPUTE = re.compile(r"(\S+) compute buffer size = +([\d.]+) MiB")
MOST_STATE_BYTES = 1 << 30
"""llama.cpp does allocate the states of recurrent layers; beyond this they are reckoned from those of one sequence."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes of a context: kv: keys and values of all cells. states: recurrent layers, of all sequences. compute: the
    graph of the largest step while the cache is full, with as many outputs as there are sequences."""

    kv: int
    states: int
    compute: int


class DryModel:
    """To be closed. Raises :class:`LoadFailed` where llama.cpp would refuse the real one, too."""

    def __init__(self, metadata: Mapping[str, gguf.Value], tensors: Iterable[gguf.TensorPlan], vocabulary: int) -> None:
        self._lib = library()
        self._metadata = metadata
        self.vocabulary = vocabulary
        self._state_bytes: int | None = None
        with tempfile.TemporaryDirectory(prefix="ingle-") as folder:
            path = Path(folder, "outline.gguf")
            gguf.outline(path, _numbers(metadata, vocabulary), tensors)
            self._handle = self._load(path)

    @classmethod
    def of(cls, files: Iterable[gguf.GGUF]) -> DryModel:
        """That of a file, or of all parts of one that was split."""
        parts = list(files)
        infos = [info for part in parts for info in part.tensors.values()]
        plans = [gguf.TensorPlan(info.name, info.shape, info.type, tuple) for info in infos]
        return cls(parts[0].metadata, plans, vocabulary_size(parts[0].metadata))

    def _load(self, path: Path) -> Any:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = self._lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = False
        params.no_alloc = True
        with native_log(quiet=True) as lines:
            handle = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise LoadFailed(
                f"llama.cpp cannot load a model like this: {' '.join(lines[-3:]) or 'no reason given'}",
                hint="a newer llama-cpp-python may know this architecture",
            )
        return handle

    @property
    def context_trained(self) -> int:
        return int(self._lib.llama_model_n_ctx_train(self._handle))

    @property
    def can_share_prefix(self) -> bool:
        """See :attr:`NativeModel.can_share_prefix`."""
        return not (self._lib.llama_model_is_recurrent(self._handle) or self._lib.llama_model_is_hybrid(self._handle))

    @property
    def generates(self) -> bool:
        return generates(self._handle, self._metadata)

    def context(self, options: ContextOptions) -> Taken:
        """What a context of ``options`` takes. Raises :class:`LoadFailed` where llama.cpp would not make it."""
        one = self._one_state(options)
        if one * options.sequences <= MOST_STATE_BYTES:
            return self._measured(options)
        return replace(self._measured(replace(options, sequences=1)), states=one * options.sequences)

    def _one_state(self, options: ContextOptions) -> int:
        if self._state_bytes is None:
            small = replace(options, sequences=1, rows=1, cells=256)
            self._state_bytes = 0 if self.can_share_prefix else self._measured(small).states
        return self._state_bytes

    def _measured(self, options: ContextOptions) -> Taken:
        params = native_parameters(options)
        params.n_outputs_max = options.sequences
        params.offload_kqv = False
        said: list[str] = []
        with native_log(said=said, quiet=True) as lines:
            handle = self._lib.llama_init_from_model(self._handle, params)
        if not handle:
            reason = " ".join(lines[-3:]) or "no reason given"
            raise LoadFailed(
                f"llama.cpp cannot make a context of {options.cells} cells: {reason}",
                hint="a smaller --ctx or --kv-type q8_0 needs less memory",
            )
        self._lib.llama_free(handle)
        return Taken(_sum(_KV, said), _sum(_STATES, said), _compute(said))

    def close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._lib.llama_model_free(handle)

    def __enter__(self) -> DryModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def vocabulary_size(metadata: Mapping[str, gguf.Value]) -> int:
    """Tokens of a file's vocabulary, or of the one that it says it has."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list):
        return len(tokens)
    return int(str(metadata.get(f"{metadata.get('general.architecture')}.vocab_size", 1)))


def _numbers(metadata: Mapping[str, gguf.Value], vocabulary: int) -> dict[str, gguf.Value]:
    arch = str(metadata.get("general.architecture", ""))
    own = {key: value for key, value in metadata.items() if key.startswith(f"{arch}.") or key == SEGMENTS}
    return {
        "general.architecture": arch,
        "tokenizer.ggml.model": "no_vocab",
        **own,
        f"{arch}.vocab_size": vocabulary,
    }


def _sum(pattern: re.Pattern[str], lines: Iterable[str]) -> int:
    """The sizes that these lines of llama.cpp's log name, in bytes."""
    return sum(round(float(found[1]) * MIB) for line in lines if (found := pattern.search(line)))


def _compute(lines: Iterable[str]) -> int:
    """Of the graph: backends that share a kind of memory (the CPU's and our attention) share the buffer, too."""
    found = [match for line in lines if (match := _COMPUTE.search(line))]
    return sum({match[1]: round(float(match[2]) * MIB) for match in found}.values())
