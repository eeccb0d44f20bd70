"""A conversation after the server was killed: how soon its next turn begins, by how soon a cold one would."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .client import ask
from .crowds import SHARED_TOKENS
from .facts import vocabulary
from .metrics import counter
from .peers import Server, ingle_server
from .ratios import Goal, Line

ROUNDS = 3
COLD = "cold"
SETTLE_S = 0.5
DISK = "ingle_engine_disk_bytes"
GOAL = Goal("first token after 2,000 known tokens, killed and started again", "s", COLD, 0.15)


def lines(model: Path, threads: int, context: str, folder: Path) -> Iterator[Line]:
    """``folder``: where the cache of the servers is."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    options = ("--threads", str(threads), "--threads-prefill", str(threads), "--ctx", context, "--cache-disk", "4GB")
    cold, warm = [], []
    prompts: list[list[int]] = []
    words = vocabulary(model)
    with ingle_server(model, words, *options) as server:
        server.decode(8, 0)
        for _ in range(ROUNDS):
            prompts.append(server.fresh_tokens(SHARED_TOKENS))
            cold.append(first_token_s(server, prompts[-1]))
        settle(server)
        for process in (*server.process.children(recursive=True), server.process):
            process.kill()
    with ingle_server(model, words, *options) as server:
        server.decode(8, 0)
        warm += [first_token_s(server, prompt) for prompt in prompts]
    ratios = sorted(after / before for before, after in zip(cold, warm, strict=True))
    middle = ROUNDS // 2
    yield Line(GOAL, sorted(warm)[middle], sorted(cold)[middle], ratios[middle], ratios[0], ratios[-1], ROUNDS)


def first_token_s(server: Server, prompt: list[int]) -> float:
    answer = asyncio.run(ask(f"{server.url}/v1/completions", server.body(prompt, 1)))
    return answer.events[0] - answer.sent


def settle(server: Server) -> None:
    """Wait until all that the server wants to keep is on disk."""
    before = -1.0
    while (now := counter(server.url, DISK)) != before or now == 0:
        before = now
        time.sleep(SETTLE_S)
