"""What a streamed token costs beside the kernels: CPU time of the server and its engine that no step explains.

The engine counts the CPU seconds of its steps; the rest of what the two processes used is scheduling, sampling, text,
the socket between them, JSON and HTTP. The model is tiny, so that its weights do not push all else out of the caches,
and there is one thread for the kernels, so that none spins while another one waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .facts import vocabulary
from .finding import Finding
from .machine import cpu_seconds
from .metrics import kernel_cpu_seconds
from .peers import Server, ingle_server

TOKENS = 600
DEPTHS = (8, 30_000)
STEP_US = 150
STREAMED_TOKEN_US = 30


def findings(model: Path) -> list[Finding]:
    options = ("--ctx", "32768", "--threads", "1", "--threads-prefill", "1", "--speculate", "off")
    with ingle_server(model, vocabulary(model), *options) as server:
        server.complete(server.fresh_tokens(8), 8)
        return [beside(server, depth) for depth in DEPTHS]


def beside(server: Server, depth: int) -> Finding:
    """Microseconds of CPU a token, of a single stream after a prompt of ``depth`` tokens that is in the cache."""
    prompt = server.fresh_tokens(depth)
    server.complete(prompt, 1)
    few, many = spent(server, prompt, 1), spent(server, prompt, 1 + TOKENS)
    beside_us, kernels_us = ((later - earlier) / TOKENS * 1e6 for earlier, later in zip(few, many, strict=True))
    what = f"CPU beside the kernels, a token after {depth}"
    return Finding(what, beside_us, STEP_US + STREAMED_TOKEN_US, "µs", detail=f"kernels {kernels_us:.0f} µs a token")


def spent(server: Server, prompt: Sequence[int], tokens: int) -> tuple[float, float]:
    """CPU seconds of an answer: beside the kernels, and in them."""
    cpu, kernels = cpu_seconds(server.process), kernel_cpu_seconds(server.url)
    server.complete(prompt, tokens)
    kernels = kernel_cpu_seconds(server.url) - kernels
    return cpu_seconds(server.process) - cpu - kernels, kernels
