"""llama.cpp's sampler chain for one sequence, built from a resolved ``Sampling``."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

from ...convert.errors import EngineError
from ..request import Sampling
from .context import Context
from .library import library
from .vocab import Vocab

KEEP_AT_LEAST = 1
MIROSTAT_SURPRISES = 100  # m of the mirostat paper, as in llama.cpp


class Sampler:
    """Draws tokens from a context's logits. ``sampling`` has no ``None`` left, seed included.

    Order as in llama.cpp's common sampler: bias, penalties, DRY, top-k, typical, top-p, min-p, XTC, temperature, draw.
    """

    def __init__(self, sampling: Sampling, vocab: Vocab, window: int) -> None:
        self._lib = library()
        self._chain = self._lib.llama_sampler_chain_init(self._lib.llama_sampler_chain_default_params())
        for stage in _stages(self._lib, sampling, vocab, window):
            if not stage:
                self.close()
                raise EngineError(f"llama.cpp refuses a sampler of {sampling}")
            self._lib.llama_sampler_chain_add(self._chain, stage)

    def sample(self, context: Context, index: int) -> int:
        """Draw the next token at a batch index, and remember it for the penalties."""
        return int(self._lib.llama_sampler_sample(self._chain, context.handle, index))

    def accept(self, tokens: Iterable[int]) -> None:
        """Let the penalties see tokens that were not drawn here: the prompt's."""
        for token in tokens:
            self._lib.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain."""
        if self._chain is not None:
            chain, self._chain = self._chain, None
            self._lib.llama_sampler_free(chain)


def _stages(lib: Any, sampling: Sampling, vocab: Vocab, window: int) -> Iterator[Any]:
    if sampling.logit_bias:
        bias = (lib.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias.items())
        yield lib.llama_sampler_init_logit_bias(vocab.size, len(bias), bias)
    yield from _penalties(lib, sampling, vocab, window)
    if sampling.temperature == 0:
        yield lib.llama_sampler_init_greedy()
    elif sampling.mirostat:
        yield from _mirostat(lib, sampling, vocab)
    else:
        yield from _truncations(lib, sampling)
        yield lib.llama_sampler_init_temp(sampling.temperature)
        yield lib.llama_sampler_init_dist(sampling.seed)


def _penalties(lib: Any, sampling: Sampling, vocab: Vocab, window: int) -> Iterator[Any]:
    if has_penalties(sampling):
        last_n = look_back(sampling.repeat_last_n, window)
        yield lib.llama_sampler_init_penalties(
            vocab.size, last_n, sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
        )
    if sampling.dry_multiplier:
        breakers = [text.encode() for text in sampling.dry_sequence_breakers]
        last_n = look_back(sampling.dry_penalty_last_n, window)
        yield lib.llama_sampler_init_dry(
            vocab.handle,
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            last_n,
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


def look_back(span: int, window: int) -> int:
    """Tokens that a penalty looks back on. llama.cpp allocates what it is told, and none has more than the window."""
    return window if span < 0 else min(span, window)


def has_penalties(sampling: Sampling) -> bool:
    """Whether repeated tokens are held against a candidate."""
    return sampling.repeat_last_n != 0 and (
        sampling.repeat_penalty != 1 or sampling.frequency_penalty != 0 or sampling.presence_penalty != 0
    )
