"""A client hangs up while its long prompt is read: when do the cores rest, and what does another stream notice?"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from statistics import median

import psutil

from .client import Answer, ask, call, finish
from .facts import vocabulary
from .finding import Finding
from .metrics import cancelled_requests, evaluated_tokens
from .peers import Server, ingle_server

PROMPT_TOKENS = 2000
LEAVE_AFTER_S = 0.4
TRIALS = 5
WATCH_S = 1.5
STEP_S = 0.01
REST_S = 0.1
RESTING_CPU_S = 0.02
STREAM_TOKENS = 400
BASELINE_TOKENS = 100
BOUND_S = 0.25


def findings(model: Path) -> list[Finding]:
    options = ("--ctx", "2048", "--threads", "2", "--threads-prefill", "2", "--speculate", "off")
    with ingle_server(model, vocabulary(model), *options) as server:
        whole = server.complete(server.fresh_tokens(PROMPT_TOKENS), 1)
        return [*stopping(server, whole), *disturbing(server)]


def stopping(server: Server, whole: Answer) -> list[Finding]:
    """Nobody else is there: time until the server's CPU use ends, streaming and not; and what it still read."""
    before, cancelled = evaluated_tokens(server.url), cancelled_requests(server.url)
    streamed = [stop_s(server, stream=True) for _ in range(TRIALS)]
    waited = [stop_s(server, stream=False) for _ in range(TRIALS)]
    share = (evaluated_tokens(server.url) - before) / (2 * TRIALS * PROMPT_TOKENS)
    given_up = cancelled_requests(server.url) - cancelled
    detail = f"worst of {TRIALS}; the whole prompt takes {whole.ended - whole.sent:.2f} s"
    return [
        Finding("client leaves a stream: compute stops after", max(streamed), BOUND_S, "s", detail=detail),
        Finding("client leaves a plain request: compute stops after", max(waited), BOUND_S, "s", detail=detail),
        Finding("abandoned requests that were given up", given_up, 2 * TRIALS, at_least=True),
        Finding("share of the abandoned prompts that was read", share, 0.8, detail=f"left after {LEAVE_AFTER_S} s"),
    ]


def stop_s(server: Server, stream: bool) -> float:
    body = server.body(server.fresh_tokens(PROMPT_TOKENS), 1) | ({} if stream else {"stream": False})
    if not stream:
        del body["stream_options"]
    asyncio.run(abandon(server, body))
    left = time.perf_counter()
    used = list(watch(server.process, left))
    for index, (at, cpu) in enumerate(used):
        later = [then for moment, then in used[index:] if moment <= at + REST_S]
        if later[-1] - cpu <= RESTING_CPU_S:
            return at - left
    return WATCH_S


async def abandon(server: Server, body: dict[str, object]) -> None:
    waiting = await call(f"{server.url}/v1/completions", body)
    await asyncio.sleep(LEAVE_AFTER_S)
    waiting.leave()


def watch(process: psutil.Process, since: float) -> list[tuple[float, float]]:
    """Time and CPU seconds of the server and its children, every :data:`STEP_S` for :data:`WATCH_S`."""
    family = [process, *process.children(recursive=True)]
    samples: list[tuple[float, float]] = []
    for step in itertools.count():
        if step * STEP_S > WATCH_S:
            return samples
        time.sleep(max(0.0, since + step * STEP_S - time.perf_counter()))
        times = [member.cpu_times() for member in family]
        samples.append((time.perf_counter(), sum(each.user + each.system for each in times)))
    return samples


def disturbing(server: Server) -> list[Finding]:
    """Another stream runs all the while: its gaps once the client has left, beside the same stretch of one alone."""
    alone = asyncio.run(ask(f"{server.url}/v1/completions", token_by_token(server)))
    answer, came, left = asyncio.run(stream_through(server))
    gaps = list(zip(answer.events[1:], answer.gaps_s, strict=True))
    during = [gap for at, gap in gaps if came <= at < left + BOUND_S]
    after = [gap for at, gap in gaps if at >= left + BOUND_S]
    undisturbed = alone.gaps_s[-len(after) :]
    detail = f"alone {median(undisturbed) * 1e3:.1f} ms; longest while the prompt was read {max(during) * 1e3:.0f} ms"
    tokens = answer.usage["completion_tokens"]
    return [
        Finding("another stream: tokens it got", tokens, STREAM_TOKENS, at_least=True),
        Finding("another stream: median gap after / alone", median(after) / median(undisturbed), 1.2, detail=detail),
        Finding("another stream: longest gap after", max(after), BOUND_S, "s"),
    ]


def token_by_token(server: Server) -> dict[str, object]:
    """A long answer that comes token by token: with their logprobs, pieces do not wait for each other."""
    return server.body(server.fresh_tokens(8), STREAM_TOKENS) | {"logprobs": 1}


async def stream_through(server: Server) -> tuple[Answer, float, float]:
    """A long answer, in the middle of which somebody comes with a long prompt and leaves. Answer, came at, left at."""
    url = f"{server.url}/v1/completions"
    running = await call(url, token_by_token(server))
    reading = asyncio.create_task(finish(running))
    while len(running.pieces) < BASELINE_TOKENS and not reading.done():
        await asyncio.sleep(STEP_S)
    came = time.perf_counter()
    await abandon(server, server.body(server.fresh_tokens(PROMPT_TOKENS - 100), 1))
    left = time.perf_counter()
    return await reading, came, left
