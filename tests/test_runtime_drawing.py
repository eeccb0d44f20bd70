"""The draw of a token against llama.cpp's samplers over the whole vocabulary: token for token, and in distribution."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingle.convert.errors import EngineError
from ingle.runtime.engine.drawing import TokenSource
from ingle.runtime.engine.penalties import Recent, has_penalties, look_back
from ingle.runtime.engine.shortlist import likeliest, share
from ingle.runtime.llama import sampler
from ingle.runtime.llama.library import library
from ingle.runtime.llama.sampler import Sampler
from ingle.runtime.llama.vocab import Vocab
from ingle.runtime.request import Sampling
from numpy.typing import NDArray

WINDOW = 256
DRAWS = 2000
PROMPT = tuple(range(50, 90)) * 2
PLAIN = Sampling(temperature=0.9, top_k=0, top_p=1.0, min_p=0.0, seed=11)
KINDS = {
    "customary": dataclasses.replace(PLAIN, top_k=40, top_p=0.95, min_p=0.05),
    "top-k": dataclasses.replace(PLAIN, top_k=7),
    "top-k beyond the vocabulary": dataclasses.replace(PLAIN, top_k=100_000),
    "top-p": dataclasses.replace(PLAIN, top_p=0.9),
    "top-p, all but nothing": dataclasses.replace(PLAIN, top_p=0.9999),
    "top-p and min-p": dataclasses.replace(PLAIN, top_p=0.97, min_p=0.02),
    "min-p": dataclasses.replace(PLAIN, min_p=0.1),
    "typical": dataclasses.replace(PLAIN, typical_p=0.6),
    "top-k and typical": dataclasses.replace(PLAIN, top_k=30, typical_p=0.6),
    "xtc": dataclasses.replace(PLAIN, xtc_probability=0.5, xtc_threshold=0.05),
    "top-k and xtc": dataclasses.replace(PLAIN, top_k=40, xtc_probability=0.5, xtc_threshold=0.05),
    "mirostat": dataclasses.replace(PLAIN, mirostat=1),
    "mirostat 2": dataclasses.replace(PLAIN, mirostat=2),
    "penalties": dataclasses.replace(
        PLAIN, top_k=40, repeat_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2, repeat_last_n=16
    ),
    "penalties over the window": dataclasses.replace(PLAIN, top_p=0.9, repeat_penalty=1.2, repeat_last_n=-1),
    "bias": dataclasses.replace(PLAIN, top_k=40, logit_bias={5: 4.0, 77: -100.0, 1000: 9.0}),
    "dry": dataclasses.replace(PLAIN, top_k=40, dry_multiplier=0.8, dry_allowed_length=1),
    "greedy with penalties": dataclasses.replace(PLAIN, temperature=0.0, repeat_penalty=1.5),
    "a temperature of nothing": dataclasses.replace(PLAIN, temperature=1e-60, top_k=3),
}
# llama.cpp adds up the probabilities of top-p in 32 bits: its last token can be another one, of no weight to speak of.
ROUNDED = {"top-p and min-p": 1}


@pytest.fixture(scope="module")
def vocab(bard_gguf: Mapping[str, Path]) -> Iterator[Vocab]:
    with Vocab.open(bard_gguf["f32"]) as vocab:
        yield vocab


def theirs(sampling: Sampling, vocab: Vocab, window: int) -> Sampler:
    """llama.cpp's samplers for all that ``sampling`` asks, in its own order."""
    lib = library()

    def stages() -> Iterator[Any]:
        if sampling.logit_bias:
            bias = (lib.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias.items())
            yield lib.llama_sampler_init_logit_bias(vocab.size, len(bias), bias)
        if has_penalties(sampling):
            penalties = sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
            span = look_back(sampling.repeat_last_n, window)
            yield lib.llama_sampler_init_penalties(vocab.size, span, *penalties)
        if sampling.dry_multiplier:
            yield from sampler.dry(sampling, vocab, look_back(sampling.dry_penalty_last_n, window))
        if sampling.temperature == 0:
            yield lib.llama_sampler_init_greedy()
        else:
            yield from sampler.drawing(sampling, vocab)

    return Sampler(stages())


def steps(count: int, size: int) -> Iterator[NDArray[np.float32]]:
    """Logits like a model's: some steps are sure of their token, some are not; neighbours in time look alike."""
    random = np.random.default_rng(5)
    base = random.normal(0, 2, size)
    for _ in range(count):
        base += random.normal(0, 0.2, size)
        yield (base * random.choice([0.3, 1.0, 2.5])).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_is_the_one_that_llama_cpp_draws(kind: str, vocab: Vocab) -> None:
    sampling, every = KINDS[kind], np.arange(vocab.size)
    ours, chain = TokenSource(sampling, vocab, WINDOW, PROMPT), theirs(sampling, vocab, WINDOW)
    chain.accept(PROMPT)
    others = 0
    for logits in steps(300, vocab.size):
        expected = chain.draw(every, logits)
        chain.accept([expected])
        others += ours.next(logits.copy()) != expected
    assert others <= ROUNDED.get(kind, 0)
    ours.close()
    chain.close()


def counts(draws: Sequence[int], size: int) -> NDArray[np.int64]:
    return np.bincount(draws, minlength=size)


def chi_square(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[float, int]:
    """Of two samples of one size, rare tokens taken together; and its degrees of freedom."""
    both = ours + theirs
    rare = both < 10
    pairs = [*zip(ours[~rare], theirs[~rare], strict=True), (ours[rare].sum(), theirs[rare].sum())]
    terms = [(a - b) ** 2 / (a + b) for a, b in pairs if a + b]
    return float(sum(terms)), len(terms) - 1


def likely(statistic: float, freedom: int) -> bool:
    """Whether chance does that more often than once in 10,000 times (Wilson and Hilferty's approximation)."""
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) < 3.72


def draws(sampling: Sampling, vocab: Vocab, logits: NDArray[np.float32]) -> NDArray[np.int64]:
    source = TokenSource(sampling, vocab, WINDOW, ())
    try:
        return counts([source.next(logits.copy()) for _ in range(DRAWS)], vocab.size)
    finally:
        source.close()


@pytest.mark.parametrize("kind", ["plain", "customary", "top-p", "min-p", "typical", "xtc"])
def test_the_distribution_is_llama_cpps(kind: str, vocab: Vocab) -> None:
    sampling = {**KINDS, "plain": PLAIN}[kind]
    logits = 1.5 * next(steps(1, vocab.size))
    chain, every = theirs(dataclasses.replace(sampling, seed=99), vocab, WINDOW), np.arange(vocab.size)
    expected = counts([chain.draw(every, logits) for _ in range(DRAWS)], vocab.size)
    chain.close()
    assert likely(*chi_square(draws(sampling, vocab, logits), expected))
    wrong = dataclasses.replace(sampling, temperature=1.25)
    assert not likely(*chi_square(draws(wrong, vocab, logits), expected)), "the test sees no difference"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["customary", "top-p", "min-p", "typical", "greedy with penalties", "plain", "greedy"])
def test_logits_that_are_no_numbers_are_an_error(kind: str, value: float, vocab: Vocab) -> None:
    sampling = {**KINDS, "plain": PLAIN, "greedy": Sampling(temperature=0)}[kind]
    source = TokenSource(sampling, vocab, WINDOW, ())
    with pytest.raises(EngineError, match="its weights are broken"):
        source.next(np.full(vocab.size, value, np.float32))
    source.close()


@pytest.mark.parametrize("count", [1, 3, 40, 5000])
def test_a_shortlist_has_the_likeliest(count: int) -> None:
    random = np.random.default_rng(1)
    for scale in (1, 30, 0.01, 0, 5, 200):
        logits = (random.normal(0, 1, 3000) * scale).astype(np.float32)
        logits[random.integers(0, 3000, 2990 if scale == 5 else 10)] = -np.inf
        found = set(likeliest(logits, count).tolist())
        possible = np.flatnonzero(np.isfinite(logits))
        last = np.sort(logits[possible])[-min(count, len(possible))]
        assert set(np.flatnonzero(logits > last).tolist()) <= found <= set(possible.tolist())
        assert len(found) >= min(count, len(possible))


def test_a_shortlist_is_short() -> None:
    logits = np.random.default_rng(4).normal(0, 3, 150_000).astype(np.float32)
    assert len(likeliest(logits, 40)) < 80


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 6.0])
@pytest.mark.parametrize("depth", [104.0, 1.5])
def test_top_p_keeps_the_fewest_tokens(scale: float, depth: float) -> None:
    logits = np.random.default_rng(6).normal(0, scale, 20_000).astype(np.float32)
    tokens, falling = share(logits, 0.9, depth)
    weights = np.exp(logits.astype(np.float64) - logits.max())
    order = np.argsort(-logits, kind="stable")
    needed = int(np.searchsorted(np.cumsum(weights[order]), 0.9 * weights.sum())) + 1
    within = int((logits >= logits.max() - depth).sum())
    assert len(set(tokens.tolist())) == len(tokens) == pytest.approx(min(needed, within), abs=1)
    assert logits[tokens].min() >= logits[order[len(tokens) - 1]]
    assert not falling or (np.diff(logits[tokens]) <= 0).all()
    assert falling or len(tokens) > 1000


def test_recent_tokens_are_counted_like_a_list() -> None:
    random, recent = np.random.default_rng(2), Recent(20)
    written = random.integers(0, 300, 900).tolist()
    for end in range(1, len(written) + 1):
        recent.add(written[end - 1 : end])
        tokens, times = recent.counted()
        found = {token: times for token, times in zip(tokens.tolist(), times.tolist(), strict=True) if times}
        last = written[max(0, end - 20) : end]
        assert found == {token: last.count(token) for token in last}


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("penalty", [1e-300, 1e-44, 1e-10])
def test_a_penalty_of_next_to_nothing_is_no_infinity(vocab: Vocab, penalty: float, temperature: float) -> None:
    """It makes repeated tokens all but certain, as far as their logits are above 0."""
    sampling = dataclasses.replace(PLAIN, temperature=temperature, repeat_penalty=penalty, repeat_last_n=-1)
    source = TokenSource(sampling, vocab, WINDOW, PROMPT)
    logits = np.linspace(-5, 5, vocab.size, dtype=np.float32)
    logits[60], logits[61] = 3.0, 0.0
    assert source.next(logits) == 60
    source.close()
