"""llama.cpp's samplers, over candidates that are given to them: a few tokens, or a whole vocabulary."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import EngineError
from ..request import Sampling
from .library import library
from .vocab import Vocab

KEEP_AT_LEAST = 1
MIROSTAT_SURPRISES = 100  # m of the mirostat paper, as in llama.cpp

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Sampler:
    """Samplers in a row, made once for a sequence and used for all its tokens."""

    def __init__(self, stages: Iterable[Any]) -> None:
        self._lib = library()
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        self._candidates = np.empty(0, _CANDIDATE)
        self._array = self._lib.llama_token_data_array()
        for stage in stages:
            if not stage:
                self.close()
                raise EngineError("llama.cpp refuses a sampler")
            self._lib.llama_sampler_chain_add(self._chain, stage)

    def draw(self, tokens: NDArray[np.integer[Any]], logits: NDArray[np.float32], *, falling: bool = False) -> int:
        """One of ``tokens``; ``falling``: the logits are in order, the largest first."""
        self._apply(tokens, logits, falling)
        return int(self._array.data[self._array.selected].id)

    def adjusted(self, tokens: NDArray[np.integer[Any]], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of ``tokens`` as samplers that neither drop nor reorder them leave them."""
        self._apply(tokens, logits, falling=False)
        return self._candidates["logit"][: len(tokens)]

    def accept(self, tokens: Iterable[int]) -> None:
        """Let samplers with a memory see tokens that were taken."""
        for token in tokens:
            self._lib.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the samplers."""
        if self._chain is not None:
            chain, self._chain = self._chain, None
            self._lib.llama_sampler_free(chain)

    def _apply(self, tokens: NDArray[np.integer[Any]], logits: NDArray[np.float32], falling: bool) -> None:
        count, array = len(tokens), self._array
        if count > len(self._candidates):
            self._candidates = np.zeros(2 * count, _CANDIDATE)
            self._first = self._candidates.ctypes.data_as(ctypes.POINTER(self._lib.llama_token_data))
        self._candidates["id"][:count] = tokens
        self._candidates["logit"][:count] = logits
        array.data = self._first  # a sampler may have moved it
        array.size, array.selected, array.sorted = count, -1, falling
        self._lib.llama_sampler_apply(self._chain, ctypes.byref(array))


def drawing(sampling: Sampling, vocab: Vocab) -> Iterator[Any]:
    """From candidates to a token: top-k, typical, top-p, min-p, XTC, temperature, the draw; or mirostat.

    ``sampling`` has no ``None`` left, seed included. What is switched off has no sampler.
    """
    lib = library()
    if sampling.mirostat:
        yield from _mirostat(lib, sampling, vocab)
    else:
        yield from _truncations(lib, sampling)
        yield lib.llama_sampler_init_temp(sampling.temperature)
        yield lib.llama_sampler_init_dist(sampling.seed)


def draw_alone(seed: int) -> Iterator[Any]:
    """A draw from the softmax of the logits."""
    yield library().llama_sampler_init_dist(seed)


def dry(sampling: Sampling, vocab: Vocab, window: int) -> Iterator[Any]:
    """Don't repeat yourself: lowers the logits of tokens that would go on with a repetition."""
    breakers = [text.encode() for text in sampling.dry_sequence_breakers]
    yield library().llama_sampler_init_dry(
        vocab.handle,
        sampling.dry_multiplier,
        sampling.dry_base,
        sampling.dry_allowed_length,
        window,
        (ctypes.c_char_p * len(breakers))(*breakers),
        len(breakers),
    )


def _mirostat(lib: Any, sampling: Sampling, vocab: Vocab) -> Iterator[Any]:
    yield lib.llama_sampler_init_temp(sampling.temperature)
    if sampling.mirostat == 1:
        yield lib.llama_sampler_init_mirostat(
            vocab.size, sampling.seed, sampling.mirostat_tau, sampling.mirostat_eta, MIROSTAT_SURPRISES
        )
    else:
        yield lib.llama_sampler_init_mirostat_v2(sampling.seed, sampling.mirostat_tau, sampling.mirostat_eta)


def _truncations(lib: Any, sampling: Sampling) -> Iterator[Any]:
    if sampling.top_k:
        yield lib.llama_sampler_init_top_k(sampling.top_k)
    if sampling.typical_p < 1:
        yield lib.llama_sampler_init_typical(sampling.typical_p, KEEP_AT_LEAST)
    if sampling.top_p is not None and sampling.top_p < 1:
        yield lib.llama_sampler_init_top_p(sampling.top_p, KEEP_AT_LEAST)
    if sampling.min_p:
        yield lib.llama_sampler_init_min_p(sampling.min_p, KEEP_AT_LEAST)
    if sampling.xtc_probability:
        yield lib.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, KEEP_AT_LEAST, sampling.seed)
