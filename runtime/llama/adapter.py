"""A LoRA adapter, loaded by llama.cpp beside its model."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...convert import gguf
from ...convert.errors import InputError, LoadFailed
from .library import library, native_log

if TYPE_CHECKING:
    from .model import NativeModel


class NativeAdapter:
    """The pairs of an adapter file, for one model. Must be loaded before the model's contexts are made, and closed
    after them and before the model.

    ignored: tensors of the model for which it has pairs that llama.cpp's graph does not ask for.

    Raises:
        BadGGUF: the file breaks the format. InputError: it is no adapter, or one for another model.
        LoadFailed: llama.cpp refuses it.
    """

    def __init__(self, model: NativeModel, path: Path, scale: float = 1.0) -> None:
        from ...convert import lora  # with the families of all checkpoints, which no other model needs
        from ...convert.adapter import BASE_NAME_KEY

        file = gguf.read(path)
        self.path, self.scale = path, scale
        self.metadata = file.metadata
        self.base_name = str(file.metadata.get(BASE_NAME_KEY, ""))
        _check(file.metadata, model, path)
        targets = [name.rpartition(".lora_")[0] for name in file.tensors if name.endswith(".lora_a")]
        self.ignored = tuple(name for name in targets if not lora.is_adapted(model.architecture, name))
        if lora.EMBEDDING in targets and not model.has_own_head:  # llama.cpp would take it for the head's, and abort
            raise InputError(
                f"{path} adapts the embedding, which is the head of {model.path}, too: llama.cpp cannot do that",
                hint="merge the adapter into its base, and convert the result",
            )
        self._lib = library()
        with native_log() as lines:
            self.handle: Any = self._lib.llama_adapter_lora_init(model.handle, str(path).encode())
        if not self.handle:
            reason = " ".join(lines[-3:])
            if "wrong base model" in reason:
                made_for = f", made for {self.base_name}" if self.base_name else ""
                raise InputError(
                    f"{path}{made_for} does not fit {model.path}: {reason}",
                    hint="an adapter works only with the model that it was trained on",
                )
            raise LoadFailed(f"{path}: llama.cpp cannot load this adapter: {reason or 'no reason given'}")

    def close(self) -> None:
        """Free the pairs."""
        if self.handle is not None:
            handle, self.handle = self.handle, None
            self._lib.llama_adapter_lora_free(ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p)))


def _check(metadata: Mapping[str, gguf.Value], model: NativeModel, path: Path) -> None:
    from ...convert.adapter import LORA, TYPE_KEY

    kind = metadata.get(TYPE_KEY, "model")
    if kind != LORA or metadata.get("adapter.type") != "lora":
        raise InputError(
            f"{path} is of type {kind}, not a LoRA adapter",
            hint="ingle convert ADAPTER --base MODEL makes one of a PEFT folder",
        )
    arch = metadata.get("general.architecture")
    if arch != model.architecture:
        raise InputError(
            f"{path} is an adapter for {arch} models, and {model.path} is a {model.architecture} model",
            hint="an adapter works only with the model that it was trained on",
        )
    if "adapter.alora.invocation_tokens" in metadata:
        raise InputError(f"{path} is an activated adapter (aLoRA), which this version cannot switch on in time")
