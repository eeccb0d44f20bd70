"""Answers that repeat their prompt, and answers that do not: what computing ahead wins, and what it loses.

Nobody's weights can be fetched here, and random ones copy nothing. So two heads are planted in random weights of the
shape of SmolLM-135M: one tells each position which token came before it, the other looks for the place where the
present token came before, and brings what followed there. The rest computes as always and is not listened to. Such a
model copies without a fault, which no real one does all the time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from . import machine
from .blocks import Block, ratio, run_block
from .client import ask
from .facts import vocabulary
from .finding import Finding
from .make_model import SHAPES, Shape, tensors
from .peers import Server, ingle_server, llama_server

SHAPE = "smollm-135m"
COPIES = "smollm-135m-copies"
THETA = 1e9
PASSAGE_TOKENS = 300
ANSWER_TOKENS = 256
BLOCKS = 3

CODE = 64  # dimensions of a token's code, as many as a head has
CONSTANT, LOUD, SHARP, MATCH = 8.0, 6.0, 14.0, 5.0


def shape() -> Shape:
    return dataclasses.replace(SHAPES[SHAPE], rope_theta=THETA)


def planted(seed: int = 0) -> dict[str, Any]:
    """The weights. Dimension 0 of the residual stream is constant, then come the code of the token and of the one
    before it."""
    made, of = tensors(shape(), seed), shape()
    random = np.random.default_rng(seed + 1)
    for name, values in made.items():
        if len(values.shape) == 1:
            values[:] = 1
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            values[:] = 0
    embedding = made["model.embed_tokens.weight"]
    embedding[:] = 0
    embedding[:, 0] = CONSTANT
    embedding[:, 1 : 1 + CODE] = random.choice([-1, 1], (of.vocabulary, CODE))
    token, before = slice(1, 1 + CODE), slice(1 + CODE, 1 + 2 * CODE)
    half = CODE // 2
    turns = THETA ** (-np.arange(half) / half)
    first = functools.partial(_part, made, 0)
    first("q_proj")[:CODE], first("k_proj")[:CODE], first("v_proj")[:CODE] = 0, 0, 0
    norm = np.sqrt((CONSTANT**2 + CODE) / of.hidden)
    quick = np.arange(8)
    first("q_proj")[quick, 0] = SHARP * np.cos(turns[quick]) * norm / CONSTANT
    first("q_proj")[half + quick, 0] = -SHARP * np.sin(turns[quick]) * norm / CONSTANT
    first("k_proj")[quick, 0] = SHARP * norm / CONSTANT
    first("v_proj")[:CODE, token] = np.eye(CODE) * norm
    first("o_proj")[before, :CODE] = np.eye(CODE)
    second = functools.partial(_part, made, 1)
    second("q_proj")[:CODE], second("k_proj")[:CODE], second("v_proj")[:CODE] = 0, 0, 0
    slow = np.concatenate([np.arange(half // 2, half), np.arange(half + half // 2, CODE)])
    for row, dimension in enumerate(slow):
        second("q_proj")[dimension, token.start + row] = MATCH
        second("k_proj")[dimension, before.start + row] = MATCH
    second("v_proj")[:CODE, token] = np.eye(CODE)
    second("o_proj")[token, :CODE] = np.eye(CODE) * LOUD
    return made


def _part(weights: dict[str, Any], layer: int, name: str) -> Any:
    return weights[f"model.layers.{layer}.self_attn.{name}.weight"]


@contextmanager
def contenders(model: Path) -> Iterator[list[Server]]:
    """ingle as it is, without computing ahead, and llama-server where ``LLAMA_SERVER`` says where it is."""
    words, theirs = vocabulary(model), os.environ.get("LLAMA_SERVER")
    options = ("--threads", "2", "--threads-prefill", "2", "--ctx", "2048")
    with ExitStack() as stack:
        ours = stack.enter_context(ingle_server(model, words, *options))
        off = stack.enter_context(ingle_server(model, words, *options, "--speculate", "off"))
        sides = [ours, dataclasses.replace(off, name="one by one")]
        if theirs:
            sides.append(stack.enter_context(llama_server(Path(theirs), model, words, "-t", "2", "-c", "2048")))
        yield sides


def speed(server: Server, copies: bool) -> float:
    """Tokens per second of an answer that repeats its prompt, or of one whose tokens are drawn."""
    passage = server.distinct_tokens(PASSAGE_TOKENS)
    body = server.body([*passage, *passage[:4]], ANSWER_TOKENS)
    if not copies:
        body |= {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
    return asyncio.run(ask(f"{server.url}/v1/completions", body)).decode_tokens_per_s


def findings(copies: Path, prose: Path) -> list[Finding]:
    return [*compared(copies, "copied", 1.5), *compared(prose, "drawn", 0.98)]


def compared(model: Path, what: str, bound: float) -> Iterator[Finding]:
    with contenders(model) as sides:
        for side in sides:
            speed(side, what == "copied")
        blocks = [block(sides, what == "copied") for _ in range(BLOCKS)]
    for other in sides[1:]:
        found = ratio(blocks, sides[0].name, other.name)
        detail = (
            f"{found.low:.3f}-{found.high:.3f}; others used {max(one.foreign for one in blocks):.1%} of the machine"
        )
        name = f"{what} answer: speed by {other.name}"
        yield Finding(name, found.median, bound, at_least=True, detail=detail)


def block(sides: list[Server], copies: bool) -> Block:
    servers = [side.process for side in sides]
    runs = {side.name: functools.partial(speed, side, copies) for side in sides}
    return run_block(runs, functools.partial(foreign, servers))


def foreign(servers: list[psutil.Process], work: Any) -> float:
    before = machine.read(servers)
    work()
    return machine.foreign_share(before, machine.read(servers))
