"""Nobody's text reaches anybody else: conversations interleaved at random, over a cache too small in every tier.

Four conversations of two owners begin with the same words and go on with their own. Whatever is shared, pushed out,
parked, written to disk or brought back: each answer must be the one of an engine that reuses nothing, and no prompt may
find more in the cache than its own owner has said before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from engines import GREEDY
from ingle.runtime.engine.engine import Engine
from ingle.runtime.engine.parked import common_length
from ingle.runtime.engine.stream import Stream
from ingle.runtime.llama.context import Context, ContextOptions, Rows
from ingle.runtime.llama.model import NativeModel
from ingle.runtime.options import LoadOptions
from ingle.runtime.request import Delta, Request, TokenLogprob

TIE = 1e-3
NEAR = 1e-4
"""What the order of cells in a sum makes of f32 logits that reach to 20."""

HEAD = list(range(300, 400))
WINDOW = 360
ANSWER_TOKENS = 6
SMALL = LoadOptions(
    context_length=WINDOW,
    kv_cells=512,
    parallel=3,
    kv_type="f32",
    prefill_chunk=64,
    cache_ram_bytes=1_500_000,
    cache_disk_bytes=3_000_000,
)


@dataclass
class Talk:
    """A conversation: its owner, whose words it has, and all that was said."""

    owner: str
    words: random.Random
    said: list[int] = field(default_factory=lambda: list(HEAD))

    def speak(self) -> None:
        """The next turn's words; a conversation that is long begins anew."""
        new = [self.words.randrange(500, 4000) for _ in range(self.words.randrange(8, 90))]
        if len(self.said) + len(new) + ANSWER_TOKENS >= WINDOW:
            self.said = list(HEAD)
        self.said += new

    def request(self) -> Request:
        return Request(tuple(self.said), GREEDY, ANSWER_TOKENS, logprobs=3, ignore_eos=True, owner=self.owner)


@dataclass
class Machines:
    """``small`` reuses what it can, ``plain`` nothing. ``known``: what each owner has said and heard."""

    small: Engine
    plain: Engine
    known: dict[str, list[list[int]]] = field(default_factory=dict)

    def close(self) -> None:
        self.small.close()
        self.plain.close()


@pytest.fixture(scope="module")
def machines(bard_gguf: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        plain = LoadOptions(context_length=WINDOW, parallel=1, kv_type="f32", prefix_cache=False)
        both = Machines(Engine(bard_gguf["f32"], SMALL), Engine(bard_gguf["f32"], plain))
    yield both
    both.close()


def heard(deltas: Sequence[Delta]) -> list[TokenLogprob]:
    return [token for delta in deltas for token in delta.logprobs]


def agree(one: list[TokenLogprob], other: list[TokenLogprob]) -> bool:
    """The same tokens with the same logprobs, up to one before which two were equally likely."""
    for mine, theirs in zip(one, other, strict=True):
        if abs(mine.top[0].logprob - theirs.top[0].logprob) > TIE:
            return False
        if mine.token != theirs.token:
            return abs(mine.logprob - theirs.logprob) < TIE
    return True


def check(machines: Machines, talk: Talk, stream: Stream, earlier: list[list[int]]) -> None:
    prompt, answer = list(talk.said), heard(list(stream))
    most = max((common_length(before, prompt) for before in earlier), default=0)
    assert stream.usage.cached_tokens <= most, "the cache knew what its owner never said"
    assert agree(answer, heard(list(machines.plain.submit(talk.request()))))
    talk.said += [token.token for token in answer]
    machines.known.setdefault(talk.owner, []).append(list(talk.said))


def interleave(machines: Machines, seed: int) -> None:
    chance = random.Random(seed)
    owners = [f"{seed // 3}{letter}" for letter in "aabb"]  # some come back later
    talks = [Talk(owner, random.Random(seed * 10 + place)) for place, owner in enumerate(owners)]
    for _ in range(4):
        turn = chance.sample(talks, chance.randint(1, 4))
        for talk in turn:
            talk.speak()
        prompts = {talk.owner: [list(one.said) for one in turn if one.owner == talk.owner] for talk in turn}
        streams = [machines.small.submit(talk.request()) for talk in turn]
        for talk, stream in zip(turn, streams, strict=True):
            others = [prompt for prompt in prompts[talk.owner] if prompt != talk.said]
            check(machines, talk, stream, machines.known.get(talk.owner, []) + others)


@pytest.mark.parametrize("seed", range(2))
def test_conversations_interleaved_at_random(machines: Machines, seed: int) -> None:
    interleave(machines, seed)


def test_every_tier_was_in_play(machines: Machines) -> None:
    for seed in range(100, 105):
        figures = machines.small.stats()
        if figures.cached_tokens and figures.parked_tokens and figures.disk_tokens:
            break
        interleave(machines, seed)
    figures = machines.small.stats()
    assert figures.cached_tokens > 0
    assert figures.parked_tokens > 0
    assert figures.disk_tokens > 0
    assert figures.parked_bytes <= 1_500_000
    assert figures.disk_bytes <= 3_000_000


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_interleavings(machines: Machines) -> None:
    for seed in range(1000, 1200):
        interleave(machines, seed)
    assert machines.small.stats().failed == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_logits_do_not_depend_on_what_the_neighbours_say(bard_gguf: Mapping[str, Path], threads: int) -> None:
    found = {way: [logits_beside(bard_gguf["f32"], seed, way, threads) for seed in (1, 2)] for way in WAYS}
    for way, (one, other) in found.items():
        assert np.array_equal(one, other), f"{way}: the neighbour's text changed bits"
        assert np.allclose(one, found["computed"][0], rtol=0, atol=NEAR), f"{way}: not what computing it gives"


WAYS = ("computed", "shared", "restored", "restored in parts")
PREFIX = 48


def logits_beside(path: Path, seed: int, way: str, threads: int) -> np.ndarray:
    """Logits of a text after a prefix that came there in some way, beside neighbours with random texts; the steps that
    compute them are of one shape, whatever the way."""
    model = NativeModel(path)
    context = Context(model, ContextOptions(512, 6, 160, threads, threads, "f32", "off", spare=True))
    words = random.Random(seed)
    neighbours = [[words.randrange(500, 4000) for _ in range(PREFIX + 16)] for _ in range(3)]
    prefix, text = list(range(300, 300 + PREFIX)), list(range(700, 716))
    context.decode([Rows(0, 0, prefix, False)])
    context.decode(_rows(neighbours, 0, PREFIX))
    if way == "computed":
        target = 0
    else:
        target = 4
        _bring(context, way, target)
    rows = [Rows(target, PREFIX, text, True), *_rows(neighbours, PREFIX, PREFIX + 16)]
    logits = context.logits(context.decode(rows)[target]).copy()
    context.close()
    model.close()
    return logits


def _rows(neighbours: list[list[int]], start: int, end: int) -> list[Rows]:
    return [Rows(slot, start, tokens[start:end], False) for slot, tokens in enumerate(neighbours, 1)]


def _bring(context: Context, way: str, target: int) -> None:
    if way == "shared":
        context.copy(0, target, 0, PREFIX)
        context.remove(0)
        return
    parts = [(0, 16), (16, PREFIX)] if way == "restored in parts" else [(0, PREFIX)]
    states = [context.save_range(0, start, end) if len(parts) > 1 else context.save(0) for start, end in parts]
    context.remove(0)
    for (start, end), state in zip(parts, states, strict=True):
        assert state is not None
        restored = (
            context.restore_range(target, start, end, state) if len(parts) > 1 else context.restore(target, state)
        )
        assert restored
