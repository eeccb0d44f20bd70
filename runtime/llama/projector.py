"""A vision part, loaded beside its language model: pictures in, rows for the language model out. The door to mtmd."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert import gguf
from ...convert.errors import BadRequest, EngineError, LoadFailed
from ..picture import Picture
from .binding import binding
from .fitting import fitted, row_limits
from .lease import Lease
from .library import flash_attention_type, library, native_log, silence
from .metadata import integer, integers
from .model import NativeModel

TEXT_CHUNK, IMAGE_CHUNK = 0, 1  # mtmd_input_chunk_type
MOST_SCORES_BYTES = 256 << 20
"""Of one layer's attention scores; a larger tower is computed with flash attention, which rounds more."""
SECTIONS = 4
"""Positions of a row in a model with M-RoPE: time, row, column, and one that is not used."""
AROUND: Mapping[str, tuple[str, str]] = {"gemma3": ("\n\n", "\n\n")}
"""Text that a family's processor puts before and after a picture, beside the tokens that mtmd puts there."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A part of a picture that becomes ``num_rows`` rows. Its handle is freed with it.

    num_positions: by how much the text behind it is further on.
    grid: of a model with M-RoPE, the positions of each row relative to the first, shaped (SECTIONS, num_rows).
    digest: says which pixels, and which part of them, these are.
    """

    handle: Any
    num_rows: int
    num_positions: int
    grid: NDArray[np.int32] | None
    digest: bytes
    computed: list[NDArray[np.float32]] = field(default_factory=list)

    def __post_init__(self) -> None:
        weakref.finalize(self, _mtmd().mtmd_input_chunk_free, self.handle)


Piece = tuple[int, ...] | Chunk


class NativeProjector:
    """The vision part of a GGUF file. :meth:`cut` may be called by any thread, :meth:`rows` by one.

    Raises:
        BadGGUF: the file breaks the format. LoadFailed: llama.cpp refuses it, or it is another model's.
    """

    def __init__(self, path: Path, model: NativeModel, threads: int) -> None:
        self.metadata = gguf.read(path).metadata
        self._lib = _mtmd()
        self._lease = Lease()
        self._vocabulary = model.vocab.size
        self._width = int(library().llama_model_n_embd_inp(model.handle))
        self.handle = self._load(path, model, threads)
        if not self._lib.mtmd_support_vision(self.handle):
            self.close()
            raise LoadFailed(f"{path} is a projector for something else than pictures")
        self.non_causal = bool(self._lib.mtmd_decode_use_non_causal(self.handle, None))
        self._uses_grid = bool(self._lib.mtmd_decode_use_mrope(self.handle))
        self._identity = hashlib.sha256(f"{path.resolve()} {path.stat().st_mtime_ns}".encode()).digest()

    def _load(self, path: Path, model: NativeModel, threads: int) -> Any:
        params = self._lib.mtmd_context_params_default()
        params.use_gpu = model.gpu_layers != 0
        params.n_threads = threads
        params.image_min_tokens, params.image_max_tokens = row_limits(self.metadata)
        params.print_timings = params.warmup = False
        many = _scores_bytes(self.metadata) > MOST_SCORES_BYTES
        params.flash_attn_type = flash_attention_type("on" if many else "off")
        with native_log(self._lib.mtmd_log_set) as lines:
            handle = self._lib.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not handle:
            raise LoadFailed(
                f"{path}: llama.cpp cannot load this projector: {' '.join(lines[-3:]) or 'no reason given'}",
                hint=f"it must be the one that belongs to {model.path.name}",
            )
        return handle

    @property
    def around(self) -> tuple[str, str]:
        """Text that belongs before and after every picture."""
        return AROUND.get(str(self.metadata.get("clip.projector_type", "")), ("", ""))

    @functools.cached_property
    def rows_together(self) -> int:
        """Rows that have to be computed in one go, because they see each other; 0 where they only look back."""
        if not self.non_causal:
            return 0
        size = integer(self.metadata, "clip.vision.image_size", 1)
        chunks = self.cut(Picture(size, size, b""), "picture")
        return max(chunk.num_rows for chunk in chunks if isinstance(chunk, Chunk))

    def cut(self, picture: Picture, where: str) -> list[Piece]:
        """What a picture is among the tokens of a prompt: rows, and the tokens that belong around them.

        Raises:
            BadRequest: llama.cpp cannot prepare the picture; ``where`` is the field that is blamed.
            EngineError: the vocabulary lacks a token that it wants to put around the picture.
        """
        with self._lease:
            return self._cut(fitted(picture, self.metadata, where), where)

    def _cut(self, picture: Picture, where: str) -> list[Piece]:
        chunks = self._lib.mtmd_input_chunks_init()
        bitmap = self._lib.mtmd_bitmap_init(picture.width, picture.height, _pixels(picture))
        part = self._lib.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(self._lib.mtmd_input_part) * 1)(ctypes.pointer(part))
        try:
            if self._lib.mtmd_tokenize_from_parts(self.handle, chunks, parts, 1, False) != 0:
                raise BadRequest(f"{where}: llama.cpp cannot prepare this picture", param=where)
            digest = hashlib.sha256(
                self._identity + f"{picture.width}x{picture.height}".encode() + picture.rgb
            ).digest()
            count = self._lib.mtmd_input_chunks_size(chunks)
            return [self._piece(self._lib.mtmd_input_chunks_get(chunks, i), digest, i) for i in range(count)]
        finally:
            self._lib.mtmd_bitmap_free(bitmap)
            self._lib.mtmd_input_chunks_free(chunks)

    def _piece(self, chunk: Any, digest: bytes, number: int) -> Piece:
        kind = self._lib.mtmd_input_chunk_get_type(chunk)
        if kind == TEXT_CHUNK:
            return self._tokens(chunk)
        if kind != IMAGE_CHUNK:
            raise EngineError(f"llama.cpp made something of kind {kind} of a picture")
        count = int(self._lib.mtmd_input_chunk_get_n_tokens(chunk))
        return Chunk(
            self._lib.mtmd_input_chunk_copy(chunk),
            count,
            int(self._lib.mtmd_input_chunk_get_n_pos(chunk)),
            self._grid(chunk, count) if self._uses_grid else None,
            hashlib.sha256(digest + number.to_bytes(4, "little")).digest(),
        )

    def _tokens(self, chunk: Any) -> tuple[int, ...]:
        count = ctypes.c_size_t()
        pointer = self._lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        tokens = tuple(pointer[: count.value])
        if any(not 0 <= token < self._vocabulary for token in tokens):
            raise EngineError("the model's vocabulary lacks a token that belongs around pictures")
        return tokens

    def _grid(self, chunk: Any, count: int) -> NDArray[np.int32]:
        image = self._lib.mtmd_input_chunk_get_tokens_image(chunk)
        places = (self._lib.mtmd_image_tokens_get_decoder_pos(image, 0, index) for index in range(count))
        return np.array([(place.t, place.y, place.x, place.z) for place in places], np.int32).T.copy()

    def rows(self, chunk: Chunk) -> NDArray[np.float32]:
        """The rows of a chunk, shaped (num_rows, width of the language model). Computed once for each chunk.

        Raises:
            EngineError: llama.cpp failed.
        """
        if not chunk.computed:
            if self._lib.mtmd_encode_chunk(self.handle, chunk.handle) != 0:
                raise EngineError("llama.cpp could not compute a picture")
            pointer = self._lib.mtmd_get_output_embd(self.handle)
            found = np.ctypeslib.as_array(pointer, (chunk.num_rows, self._width)).copy()
            chunk.computed.append(found)
        return chunk.computed[0]

    def close(self) -> None:
        """Free the vision part; the language model stays loaded."""
        self._lease.end()
        if self.handle is not None:
            handle, self.handle = self.handle, None
            self._lib.mtmd_free(handle)


def _pixels(picture: Picture) -> Any:
    """The pixels for mtmd; none for a picture that only stands for its size."""
    if not picture.rgb:
        return None
    return ctypes.cast(ctypes.c_char_p(picture.rgb), ctypes.POINTER(ctypes.c_uint8))


def _scores_bytes(metadata: Mapping[str, gguf.Value]) -> int:
    """Bytes of the attention scores of one layer, for the largest picture."""
    side = integer(metadata, "clip.vision.image_size", 0) // max(1, integer(metadata, "clip.vision.patch_size", 1))
    patches = max(side**2, row_limits(metadata)[1] * integer(metadata, "clip.vision.spatial_merge_size", 2) ** 2)
    heads = max(integers(metadata, "clip.vision.attention.head_count") or [1])
    return int(patches**2 * heads * 4)


@functools.cache
def _mtmd() -> Any:
    """libmtmd as bound by llama-cpp-python, silent."""
    library()
    mtmd_cpp = binding("mtmd_cpp")
    mtmd_cpp.mtmd_log_set(silence(library().llama_log_callback), None)
    return mtmd_cpp
