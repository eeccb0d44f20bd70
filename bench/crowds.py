"""Several clients at one server, and what each of them waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .client import Answer, Call, ask, call, finish
from .peers import Server

LONG_TOKENS = 4000
SHORT_TOKENS = 32
STREAM_TOKENS = 400
BEFORE_PIECES = 30
"""Pieces of a stream that have come when the long prompt is sent."""

SHARED_TOKENS = 2000
CROWD = 16
IN_TOKENS, OUT_TOKENS = 256, 128
POLL_S = 0.002
HEAD_START_S = 0.15


def stall(server: Server) -> dict[str, float]:
    """A stream runs, a long prompt comes."""
    return asyncio.run(_stall(server))


async def _stall(server: Server) -> dict[str, float]:
    stream = await _send(server, server.fresh_tokens(SHORT_TOKENS), STREAM_TOKENS)
    while len(stream.pieces) < BEFORE_PIECES:
        await asyncio.sleep(POLL_S)
    reading = await _send(server, server.fresh_tokens(LONG_TOKENS), 1)
    running, read = await asyncio.gather(finish(stream), finish(reading))
    return {
        "wait of a running stream while 4,000 tokens are read, p99": percentile(waits(running, read), 0.99),
        "first token of those 4,000": first_token_s(read),
    }


def short_behind_long(server: Server) -> dict[str, float]:
    """A long prompt comes, and a short one behind it."""
    return asyncio.run(_short_behind_long(server))


async def _short_behind_long(server: Server) -> dict[str, float]:
    long = await _send(server, server.fresh_tokens(LONG_TOKENS), 1)
    await asyncio.sleep(HEAD_START_S)
    short = await _send(server, server.fresh_tokens(SHORT_TOKENS), 1)
    _, answer = await asyncio.gather(finish(long), finish(short))
    return {"first token of 32 behind 4,000": first_token_s(answer)}


def shared(server: Server) -> dict[str, float]:
    """Requests that begin with the same tokens come all at once."""
    return asyncio.run(_shared(server))


async def _shared(server: Server) -> dict[str, float]:
    head = server.fresh_tokens(SHARED_TOKENS)
    prompts = [head + server.fresh_tokens(SHORT_TOKENS) for _ in range(CROWD)]
    answers = await _all(server, prompts, 1)
    began, ended = min(answer.sent for answer in answers), max(answer.events[0] for answer in answers)
    return {"all first tokens of 16 that share 2,000": ended - began}


def clients(server: Server) -> dict[str, float]:
    """Sixteen at once, then four."""
    return {
        f"{count} clients, {IN_TOKENS} in, {OUT_TOKENS} out": asyncio.run(_aggregate(server, count))
        for count in (16, 4)
    }


async def _aggregate(server: Server, count: int) -> float:
    answers = await _all(server, [server.fresh_tokens(IN_TOKENS) for _ in range(count)], OUT_TOKENS)
    written = sum(answer.usage["completion_tokens"] for answer in answers)
    return float(written / (max(answer.ended for answer in answers) - min(answer.sent for answer in answers)))


async def _all(server: Server, prompts: Sequence[Sequence[int]], tokens: int) -> list[Answer]:
    return list(await asyncio.gather(*(ask(_url(server), server.body(prompt, tokens)) for prompt in prompts)))


async def _send(server: Server, prompt: Sequence[int], tokens: int) -> Call:
    return await call(_url(server), server.body(prompt, tokens))


def _url(server: Server) -> str:
    return f"{server.url}/v1/completions"


def first_token_s(answer: Answer) -> float:
    """From the request to the first piece. Raises RuntimeError where the server refused it."""
    if answer.status != 200:
        raise RuntimeError(f"HTTP {answer.status}: {answer.body[:500]!r}")
    return answer.events[0] - answer.sent


def waits(stream: Answer, read: Answer) -> list[float]:
    """How long the stream waited for each token that came, or was due, while the other prompt was read."""
    begin, end = read.sent, read.events[0]
    pairs = zip(stream.events, stream.events[1:], strict=False)
    return [later - earlier for earlier, later in pairs if later > begin and earlier < end]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
