"""What computed tokens depend on, as a digest: two engines of one identity may read each other's prefix cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ...convert import gguf
from ..llama.kernels import build
from ..llama.model import NativeModel
from ..options import LoadOptions
from ..request import ModelInfo

FORMAT = "1"
SAMPLE_BYTES = 4096
"""Of each tensor's beginning and end: no two trainings, and no two quantizations, have the same."""


def identity(model: NativeModel, info: ModelInfo, options: LoadOptions) -> bytes:
    """Of a loaded model, without its adapters: its file, how its cache is laid out, and what computes.

    The name, the place and the time of the file do not count.
    """
    digest = hashlib.sha256()
    long_rope = model.long_rope_after is not None and info.kv_cells > model.long_rope_after
    for fact in (FORMAT, build(), options.kv_type, info.flash_attention, str(long_rope), str(model.gpu_layers)):
        digest.update(fact.encode() + b"\0")
    for path in _parts(model.path, model):
        digest.update(file_digest(path))
    return digest.digest()


def realm(root: bytes, owner: str, adapters: tuple[tuple[bytes, float], ...]) -> bytes:
    """Of what ``owner`` may read, computed with ``adapters`` (digests and scales) beside the model of ``root``."""
    return hashlib.sha256(root + repr((owner, adapters)).encode()).digest()


def file_digest(path: Path) -> bytes:
    """Of a GGUF file: its metadata, its table of tensors, and samples of each tensor."""
    file = gguf.read(path)
    digest = hashlib.sha256(f"{file.size_bytes}".encode())
    with path.open("rb") as handle:
        for start, size in _samples(file):
            handle.seek(start)
            digest.update(handle.read(size))
    return digest.digest()


def _samples(file: gguf.GGUF) -> Iterator[tuple[int, int]]:
    tensors = sorted(file.tensors.values(), key=lambda tensor: tensor.offset)
    yield 0, tensors[0].offset if tensors else file.size_bytes
    for tensor in tensors:
        size = min(SAMPLE_BYTES, tensor.nbytes)
        yield tensor.offset, size
        yield tensor.offset + tensor.nbytes - size, size


def _parts(path: Path, model: NativeModel) -> list[Path]:
    """The files of a model that is split into several; else the one."""
    count = model.metadata.get("split.count")
    stem, middle, _ = path.name.rpartition("-of-")
    if not isinstance(count, int) or count < 2 or not middle:
        return [path]
    return sorted(path.parent.glob(f"{stem.rpartition('-')[0]}-*-of-{count:05d}.gguf"))
