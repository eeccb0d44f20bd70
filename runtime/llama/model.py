"""A model's weights, loaded by llama.cpp."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...convert import gguf
from ...convert.errors import InputError, LoadFailed
from ..abilities import HEAD_TASK
from ..options import AdapterFile
from .adapter import NativeAdapter
from .kernels import compute_rightly, extra_buffers_work, repacking_pays
from .library import library, native_log, supports_gpu_offload
from .mapping import copied, give_back
from .metadata import integer
from .parts import paths_of
from .vocab import Vocab

HEAD = "output.weight"
VOCABULARY_KEYS = frozenset({"tokens", "merges", "scores", "token_type"})
"""Of ``tokenizer.ggml.``: a third of all that a process with a small model needs beside its weights."""


def require_model(metadata: Mapping[str, gguf.Value], path: Path) -> None:
    """Raise :class:`InputError` for a file that belongs beside a model."""
    kind = metadata.get("general.type")
    if kind == "imatrix":
        raise InputError(
            f"{path} is an importance matrix, not a model",
            hint=f"use it with: ingle quantize MODEL --imatrix {path.name}",
        )
    if kind == "mmproj" or metadata.get("general.architecture") == "clip":
        raise InputError(
            f"{path} is the vision part of a model, not a whole one",
            hint=f"load its language model, and it beside: ingle run MODEL --mmproj {path.name}",
        )
    if kind == "adapter":
        raise InputError(
            f"{path} is an adapter, not a whole model",
            hint=f"load its base, and it beside: ingle run BASE --lora {path.name}",
        )


def generates(handle: Any, metadata: Mapping[str, gguf.Value]) -> bool:
    """Whether a model is a plain decoder that sees only what came before; not one whose states go into another head or
    into an embedding."""
    decodes = library().llama_model_has_decoder(handle) and not library().llama_model_has_encoder(handle)
    architecture = metadata.get("general.architecture")
    causal = metadata.get(f"{architecture}.attention.causal", True)
    pooled = integer(metadata, f"{architecture}.pooling_type", 0) > 0
    return bool(decodes and causal and not pooled and HEAD_TASK not in metadata)


def long_rope_after(file: gguf.GGUF) -> int | None:
    """Cache size above which llama.cpp uses the second of a model's two sets of rope factors; None with one set."""
    architecture = file.metadata.get("general.architecture")
    original = integer(file.metadata, f"{architecture}.rope.scaling.original_context_length", 0)
    return original if original and any("rope_factors_long" in name for name in file.tensors) else None


class NativeModel:
    """Weights and vocabulary of a GGUF file. Not tied to a thread; contexts made from it are.

    repack: whether weights may be laid out for llama.cpp's fastest kernels, which reads them all; None where those pay
    (repacking_pays). adapters: loaded beside it.
    parts: the files of a model in several, ``path`` the first of them.
    file: what is at ``path``, where somebody has read it already. copied: whether weights were laid out anew.

    Raises:
        BadGGUF: the file breaks the format. LoadFailed: llama.cpp refuses it.
        InputError: it is no model, or an adapter is for another one.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        mmap: bool = True,
        repack: bool | None = None,
        adapters: Sequence[AdapterFile] = (),
        file: gguf.GGUF | None = None,
        parts: Sequence[Path] = (),
    ) -> None:
        file = file or gguf.read(path)
        require_model(file.metadata, path)
        self.path = path
        self.metadata: Mapping[str, gguf.Value] = file.metadata
        self.long_rope_after = long_rope_after(file)
        self.has_own_head = HEAD in file.tensors or "split.count" in file.metadata
        self.gpu_layers = gpu_layers if supports_gpu_offload() else 0
        self._lib = library()
        said: list[str] = []
        repack = repacking_pays() if repack is None else repack
        self.handle = self._load(path, parts, mmap, repack and compute_rightly(file), said)
        self.copied = copied(said)
        self._paths = parts or paths_of(file)
        self.give_back()
        self.vocab = Vocab(self._lib.llama_model_get_vocab(self.handle), self.metadata)
        self.adapters: dict[str, NativeAdapter] = {}
        try:
            for adapter in adapters:
                self._add(adapter)
        except BaseException:
            self.close()
            raise

    def _add(self, file: AdapterFile) -> None:
        if file.name in self.adapters:
            raise InputError(f"two adapters are called {file.name}", hint="rename one of the files")
        self.adapters[file.name] = NativeAdapter(self, Path(file.path), file.scale)

    def _load(self, path: Path, parts: Sequence[Path], mmap: bool, repack: bool, said: list[str]) -> Any:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = self.gpu_layers
        params.load_mode = self._lib.LLAMA_LOAD_MODE_MMAP if mmap else self._lib.LLAMA_LOAD_MODE_NONE
        params.use_extra_bufts = repack and extra_buffers_work()
        # Loading repacks weights with OpenMP. While the thread that did so lives, libgomp counts its pool beside that
        # of the decoding thread, finds more threads than CPUs and lets them sleep at barriers: half the speed.
        with native_log(said=said) as lines, ThreadPoolExecutor(1, "ingle-load") as loader:
            handle = loader.submit(self._load_files, path, parts, params).result()
        if not handle:
            raise LoadFailed(
                f"{path}: llama.cpp cannot load this model: {' '.join(lines[-3:]) or 'no reason given'}",
                hint="`ingle verify` checks the file; a newer llama-cpp-python may know this architecture",
            )
        return handle

    def _load_files(self, path: Path, parts: Sequence[Path], params: Any) -> Any:
        if not parts:
            return self._lib.llama_model_load_from_file(os.fsencode(path), params)
        paths = (ctypes.c_char_p * len(parts))(*map(os.fsencode, parts))
        return self._lib.llama_model_load_from_splits(paths, len(parts), params)

    def give_back(self) -> None:
        """Let go of what is in memory of a file whose weights were copied; what is still read comes back by itself."""
        if self.copied:
            give_back(self._paths)

    def forget_vocabulary(self) -> None:
        """Drop the long lists of the metadata. llama.cpp has its own, and :attr:`vocab` reads those."""
        dropped = {f"tokenizer.ggml.{key}" for key in VOCABULARY_KEYS}
        self.metadata = {key: value for key, value in self.metadata.items() if key not in dropped}
        self.vocab.forget(self.metadata)

    def close(self) -> None:
        """Free the weights; contexts must be closed before."""
        self.vocab.lease.end()
        while self.adapters:
            self.adapters.popitem()[1].close()
        if self.handle is not None:
            handle, self.handle = self.handle, None
            self._lib.llama_model_free(handle)

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        return str(self.metadata.get("general.name", self.path.stem))

    @property
    def parameters(self) -> int:
        return int(self._lib.llama_model_n_params(self.handle))

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(self._lib.llama_model_size(self.handle))

    @property
    def context_trained(self) -> int:
        return int(self._lib.llama_model_n_ctx_train(self.handle))

    @property
    def sliding_window(self) -> int:
        """Tokens that a sliding-window layer sees; 0 where every layer sees all."""
        return int(self._lib.llama_model_n_swa(self.handle))

    @property
    def can_share_prefix(self) -> bool:
        """Whether part of a sequence's state can be copied or removed: not so for recurrent and hybrid models."""
        return not (self._lib.llama_model_is_recurrent(self.handle) or self._lib.llama_model_is_hybrid(self.handle))

    @property
    def generates(self) -> bool:
        """Whether this is a plain decoder that sees only what came before, which is what the engine can run; not one
        whose states go into another head or into an embedding."""
        return generates(self.handle, self.metadata)

    @property
    def pairs(self) -> bool:
        """Whether it reads a text and writes another: an encoder and a decoder."""
        return bool(self._lib.llama_model_has_decoder(self.handle) and self._lib.llama_model_has_encoder(self.handle))
