"""How much of a prompt is read again: after another conversation came between, and by sixteen at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .client import ask
from .facts import vocabulary
from .finding import Finding
from .metrics import evaluated_tokens
from .peers import Server, ingle_server

CONVERSATION_TOKENS = 600
SHARED_TOKENS = 1000
TAIL_TOKENS = 8
ANSWER_TOKENS = 8
SHARERS = 16
BLOCK_TOKENS = 16


def findings(model: Path) -> list[Finding]:
    with ingle_server(model, vocabulary(model), "--ctx", "2048", "--threads", "2") as server:
        return [returning(server), sharing(server)]


def returning(server: Server) -> Finding:
    """Conversations A, B, A."""
    first, second = (server.fresh_tokens(CONVERSATION_TOKENS) for _ in "AB")
    for prompt in (first, second):
        server.complete(prompt, ANSWER_TOKENS)
    usage = server.complete(first, ANSWER_TOKENS).usage
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    bound = usage["prompt_tokens"] - BLOCK_TOKENS
    return Finding("A, B, A: cached tokens of the third prompt", cached, bound, "tokens", at_least=True)


def sharing(server: Server) -> Finding:
    """Evaluated tokens of requests that arrive together and share a prefix nobody read before."""
    shared = server.fresh_tokens(SHARED_TOKENS)
    prompts = [shared + server.fresh_tokens(TAIL_TOKENS) for _ in range(SHARERS)]
    before = evaluated_tokens(server.url)
    asyncio.run(ask_together(server, prompts))
    evaluated = evaluated_tokens(server.url) - before
    bound = SHARED_TOKENS + SHARERS * (TAIL_TOKENS + ANSWER_TOKENS)
    alone = SHARERS * (SHARED_TOKENS + TAIL_TOKENS + ANSWER_TOKENS)
    what = f"{SHARERS} requests sharing {SHARED_TOKENS} tokens: evaluated"
    return Finding(what, evaluated, bound, "tokens", detail=f"each for itself: {alone}")


async def ask_together(server: Server, prompts: list[list[int]]) -> None:
    url = f"{server.url}/v1/completions"
    await asyncio.gather(*(ask(url, server.body(prompt, ANSWER_TOKENS)) for prompt in prompts))
