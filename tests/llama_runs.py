"""llama.cpp asked directly, for what no room of ours asks it: encoder-decoders, and its own classifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ingle.convert.ggml import TYPES
from ingle.runtime.llama.library import library
from ingle.runtime.llama.model import NativeModel

POOLING_RANK = 4


@contextmanager
def context(path: Path, **settings: Any) -> Iterator[tuple[NativeModel, Any]]:
    lib, model = library(), NativeModel(path)
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = 0
    params.type_k = params.type_v = TYPES["F32"].id
    for name, value in settings.items():
        setattr(params, name, value)
    handle = lib.llama_init_from_model(model.handle, params)
    yield model, handle
    lib.llama_free(handle)
    model.close()


def compute(function: Any, handle: Any, tokens: Sequence[int]) -> None:
    lib = library()
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
        batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, index, 1
        batch.seq_id[index][0], batch.logits[index] = 0, 1
    assert function(handle, batch) == 0
    lib.llama_batch_free(batch)


def last_logits(path: Path, ids: Sequence[int], later: Sequence[int]) -> np.ndarray:
    """An encoder-decoder's logits behind the last of the decoder's tokens ``later``, for the text ``ids``."""
    lib = library()
    with context(path) as (model, handle):
        compute(lib.llama_encode, handle, ids)
        compute(lib.llama_decode, handle, later)
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(handle, len(later) - 1), (model.vocab.size,)).copy()


def classified(path: Path, ids: Sequence[int]) -> np.ndarray:
    """What llama.cpp's own classifier makes of a text."""
    lib = library()
    with context(path, embeddings=True, pooling_type=POOLING_RANK) as (model, handle):
        compute(lib.llama_encode, handle, ids)
        count = lib.llama_model_n_cls_out(model.handle)
        return np.ctypeslib.as_array(lib.llama_get_embeddings_seq(handle, 0), (count,)).copy()
