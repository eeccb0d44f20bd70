"""The next token of a sequence: from its logits, as its request wants it.

What is drawn has the distribution of llama.cpp's samplers in their customary order (see ``Sampling``), and with top-k
it is the very token that they draw; but they get to see only tokens that can still be drawn, a few dozens mostly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...convert.errors import BadRequest
from ..llama import sampler
from ..llama.sampler import Sampler
from ..llama.vocab import Vocab
from ..request import Sampling
from .penalties import Penalties, has_penalties
from .shortlist import NOTHING_BELOW, highest, likeliest, share, within

BLOCK = 256
SLACK = 1e-3  # of a logit, so that rounding decides nothing before the sampler that it belongs to does

Logits = NDArray[np.float32]
Draw = Callable[[Logits], int]


def is_greedy(sampling: Sampling) -> bool:
    """Whether the choice is the largest logit as the model computed it."""
    return sampling.temperature == 0 and not changes_logits(sampling)


def changes_logits(sampling: Sampling) -> bool:
    """Whether single logits are raised or lowered first."""
    return bool(sampling.logit_bias or sampling.dry_multiplier or has_penalties(sampling))


class TokenSource:
    """Chooses the tokens of one sequence. ``sampling`` has no ``None`` left, ``prompt`` is what the answer follows."""

    def __init__(self, sampling: Sampling, vocab: Vocab, window: int, prompt: Sequence[int]) -> None:
        self.greedy = is_greedy(sampling)
        self._penalties: Penalties | None = None
        self._forbids = -math.inf in sampling.logit_bias.values()
        if changes_logits(sampling):
            self._penalties = Penalties(sampling, vocab, window, prompt)
        self._sampler, self._draw = _way(sampling, vocab)

    def next(self, logits: Logits) -> int:
        """The next token. The logits are changed where the request asks for it.

        Raises:
            EngineError: the logits are not numbers. BadRequest: what may come next is forbidden by the request.
        """
        if self._penalties is None:
            return self._draw(logits)
        self._penalties.apply(logits)
        if self._forbids and logits.max() == -math.inf:
            raise BadRequest("logit_bias forbids every token that may come next", param="logit_bias")
        token = self._draw(logits)
        self._penalties.accept((token,))
        return token

    def accept(self, token: int) -> None:
        """``token`` comes next, which was not drawn."""
        if self._penalties is not None:
            self._penalties.accept((token,))

    def close(self) -> None:
        """Free what llama.cpp holds."""
        if self._penalties is not None:
            self._penalties.close()
        if self._sampler is not None:
            self._sampler.close()


def _way(sampling: Sampling, vocab: Vocab) -> tuple[Sampler | None, Draw]:
    """The least work that draws what ``sampling`` means; and the samplers that it uses."""
    temperature = np.float32(sampling.temperature or 0)
    if temperature == 0:
        return None, greedy
    top_k, top_p, seed = sampling.top_k or 0, sampling.top_p or 1.0, sampling.seed or 0
    chain = Sampler(sampler.drawing(sampling, vocab))
    if sampling.mirostat:
        return chain, lambda logits: _of_all(chain, logits)
    if top_k:
        return chain, lambda logits: _of(chain, logits, likeliest(logits, top_k))
    if sampling.typical_p < 1:
        return chain, lambda logits: _of_all(chain, logits)
    depth = SLACK - math.log(sampling.min_p) if sampling.min_p else NOTHING_BELOW
    if top_p < 1:
        chain.close()
        rest = Sampler(sampler.drawing(dataclasses.replace(sampling, top_p=1.0), vocab))
        return rest, lambda logits: _of(rest, logits, *share(logits, top_p, depth))
    if sampling.min_p:
        return chain, lambda logits: _of(chain, logits, within(logits, depth))
    if sampling.xtc_probability:
        return chain, lambda logits: _of_all(chain, logits)
    chain.close()
    alone = Sampler(sampler.draw_alone(seed))
    return alone, lambda logits: _of_blocks(alone, logits, temperature)


def greedy(logits: Logits) -> int:
    """The token with the largest logit."""
    token = int(logits.argmax())
    if not math.isfinite(logits.item(token)):
        highest(logits)
    return token


def _of(chain: Sampler, logits: Logits, tokens: NDArray[np.intp], falling: bool = False) -> int:
    return chain.draw(tokens, logits[tokens], falling=falling)


def _of_all(chain: Sampler, logits: Logits) -> int:
    highest(logits)
    return chain.draw(np.arange(len(logits)), logits)


def _of_blocks(chain: Sampler, logits: Logits, temperature: np.float32) -> int:
    """A draw from the softmax of all logits: first which block of tokens, then which of the block."""
    with np.errstate(over="ignore"):
        weights = np.exp((logits - np.float32(highest(logits))) / temperature)
    begin = BLOCK * _weighted(chain, np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)))
    return begin + _weighted(chain, weights[begin : begin + BLOCK])


def _weighted(chain: Sampler, weights: NDArray[np.float32]) -> int:
    """An index, drawn with these weights."""
    possible = np.flatnonzero(weights)
    return chain.draw(possible, np.log(weights[possible]))
