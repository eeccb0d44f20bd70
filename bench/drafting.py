"""What a draft model wins where it is right, and loses where it is wrong.

Nobody's weights can be fetched here, so models are made that know one thing: which token follows which, in one long
circle through the vocabulary. Their layers compute as always and are not listened to. A small model that knows the same
circle is a draft model that is always right; where it has some of the steps wrong, it is right as often as one likes.
Nothing ever repeats, so the text itself foretells nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import Block, ratio, run_block
from .client import ask
from .copying import foreign
from .facts import vocabulary
from .finding import Finding
from .make_model import SHAPES, SPECIAL, Shape, make_of, tensors
from .peers import Server, ingle_server

LARGE = dataclasses.replace(SHAPES["smollm-135m"], tied=False)
SMALL = dataclasses.replace(LARGE, hidden=128, layers=2, heads=2, kv_heads=1, intermediate=256)
KIND = "Q8_0"
BOUNDS = {1.0: 1.15, 0.9: 0.98, 0.0: 0.98}
"""How often the draft model is right about a token; how quick the answer must be, by that without it."""

LOUD = 0.25
PROMPT_TOKENS, ANSWER_TOKENS = 64, 384
BLOCKS = 3


def circling(shape: Shape, right: float = 1.0) -> dict[str, Any]:
    """Weights of a model that knows what follows each token, but for a share of them."""
    made, random = tensors(shape), np.random.default_rng(1)
    circle = random.permutation(np.arange(len(SPECIAL), shape.vocabulary))
    following = np.arange(shape.vocabulary)
    following[circle] = np.roll(circle, -1)
    wrong = np.sort(random.permutation(circle)[round(right * len(circle)) :])
    following[wrong] = np.roll(following[wrong], 1)
    for name, values in made.items():
        if len(values.shape) == 1:
            values[:] = 1
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            values[:] = 0
    codes = random.choice([-1, 1], (shape.vocabulary, shape.hidden))
    made["model.embed_tokens.weight"][:] = codes
    made["lm_head.weight"][following] = LOUD * codes
    return made


def findings(folder: Path) -> Iterator[Finding]:
    large = make_of(folder, "smollm-135m-circles", LARGE, KIND, lambda: circling(LARGE))
    for right, bound in BOUNDS.items():
        weights = functools.partial(circling, SMALL, right)
        small = make_of(folder, f"draft-right-{right:.0%}", SMALL, KIND, weights)
        yield compared(large, small, right, bound)


def compared(large: Path, small: Path, right: float, bound: float) -> Finding:
    words, options = vocabulary(large), ("--threads", "2", "--threads-prefill", "2", "--ctx", "2048")
    with ExitStack() as stack:
        drafting = stack.enter_context(ingle_server(large, words, *options, "--draft", str(small)))
        alone = stack.enter_context(ingle_server(large, words, *options))
        sides = [dataclasses.replace(drafting, name="drafting"), dataclasses.replace(alone, name="alone")]
        for side in sides:
            speed(side)
        blocks = [block(sides) for _ in range(BLOCKS)]
    found = ratio(blocks, "drafting", "alone")
    detail = f"{found.low:.3f}-{found.high:.3f}; others used {max(one.foreign for one in blocks):.1%} of the machine"
    name = f"draft model right about {right:.0%}: speed by without"
    return Finding(name, found.median, bound, at_least=True, detail=detail)


def speed(server: Server) -> float:
    """Tokens per second of an answer."""
    body = server.body(server.distinct_tokens(PROMPT_TOKENS), ANSWER_TOKENS)
    return asyncio.run(ask(f"{server.url}/v1/completions", body)).decode_tokens_per_s


def block(sides: list[Server]) -> Block:
    servers = [side.process for side in sides]
    runs = {side.name: functools.partial(speed, side) for side in sides}
    return run_block(runs, functools.partial(foreign, servers))
