"""The file that is to be: its metadata, its tensors in order, and its exact size before it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...convert import gguf
from ...convert.errors import EngineError, InputError
from ...convert.files import appearing, require_space
from ...convert.ggml import GGMLType
from ...convert.progress import Progress, silent
from ...quantize.choices import Choices
from ...quantize.shards import Shards
from ...quantize.types import TYPES as KINDS
from ..measure.summary import Distance
from .bench import Bench

QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Blueprint:
    """pieces: of the source. notes: metadata that says how the types were chosen and what was measured, of a length
    that does not depend on the figures."""

    pieces: Shards
    notes: Mapping[str, gguf.Value]

    @classmethod
    def of(cls, bench: Bench) -> Blueprint:
        notes: dict[str, gguf.Value] = {
            **Choices(bench.matrix).notes,
            "ingle.promise.text": bench.material.on,
            "ingle.promise.text_sha256": bench.material.sha256,
        }
        return cls(bench.pieces, {**notes, **_figures(0.0, 0.0, 0)})

    def measured(self, distance: Distance, predictions: int) -> Blueprint:
        """With the figures."""
        return replace(self, notes={**self.notes, **_figures(distance.kld.value, distance.kld.error, predictions)})

    @property
    def fixed_bytes(self) -> int:
        """Of the file, without the weights that are quantized."""
        source, weights = self.pieces.source, self.pieces.weights
        kept = {name: weight.info.type for name, weight in weights.items()}
        rest = sum(gguf.padded(info.nbytes) for name, info in source.tensors.items() if name not in weights)
        return len(gguf.header(self._metadata(kept), self._plans(kept))) + rest

    def write(self, mix: Mapping[str, GGMLType], out: Path, size_bytes: int, progress: Progress = silent) -> None:
        """Write the file, whole or not at all.

        Raises:
            InputError: ``out`` is the source, or a folder. DiskFull: there is no room.
            EngineError: it came out in another size than was promised.
        """
        if out.is_dir():
            raise InputError(f"{out} is a folder", hint="name the file to write")
        if out.exists() and out.samefile(self.pieces.source.path):
            raise InputError(f"{out} is the source itself", hint="write to another file")
        require_space(out.parent, size_bytes)
        with appearing(out) as partial:
            gguf.write(partial, self._metadata(mix), self._plans(mix), progress)
            if partial.stat().st_size != size_bytes:
                raise EngineError(f"{out} has {partial.stat().st_size:,} bytes, and {size_bytes:,} were planned")

    def _metadata(self, mix: Mapping[str, GGMLType]) -> Mapping[str, gguf.Value]:
        own = {"general.quantization_version": QUANTIZATION_VERSION, "general.file_type": _file_type(mix)}
        return {**self.pieces.source.metadata, **own, **self.notes}

    def _plans(self, mix: Mapping[str, GGMLType]) -> Iterator[gguf.TensorPlan]:
        source = self.pieces.source
        for name, info in source.tensors.items():
            element = mix.get(name, info.type)
            yield gguf.TensorPlan(name, info.shape, element, lambda name=name, element=element: [  # type: ignore[misc]
                self.pieces.data(name, element) if name in mix else source.tensor(name)
            ])  # fmt: skip


def _figures(kld: float, error: float, predictions: int) -> dict[str, gguf.Value]:
    return {
        "ingle.promise.kld": np.float32(kld),
        "ingle.promise.kld_error": np.float32(error),
        "ingle.promise.predictions": np.uint32(predictions),
    }


def _file_type(mix: Mapping[str, GGMLType]) -> int:
    """The number of the mixture that is named after the type which most weights have."""
    most = Counter(mix.values()).most_common(1)[0][0]
    return next((kind.native_id for kind in KINDS.values() if kind.tensor_type is most), KINDS["F16"].native_id)
