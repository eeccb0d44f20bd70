"""Counters of a running server, from its Prometheus page."""

from __future__ import annotations

import asyncio
import re

from .client import ask

EVALUATED = "ingle_engine_evaluated_tokens_total"
KERNEL_CPU = "ingle_engine_kernel_cpu_seconds_total"
CANCELLED = "ingle_engine_cancelled_total"


def counter(url: str, name: str) -> float:
    """The sum of ``name`` over all its labels. Raises RuntimeError when the page does not have it."""
    page = asyncio.run(ask(f"{url}/metrics")).body.decode()
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", page, re.MULTILINE)
    if not values:
        raise RuntimeError(f"{url}/metrics has no {name}")
    return sum(map(float, values))


def evaluated_tokens(url: str) -> float:
    """Tokens that went through the model since it was loaded, of prompts and of answers."""
    return counter(url, EVALUATED)


def kernel_cpu_seconds(url: str) -> float:
    """CPU seconds of the engine's steps since the model was loaded."""
    return counter(url, KERNEL_CPU)


def cancelled_requests(url: str) -> float:
    """Requests that the engine gave up because their client had left."""
    return counter(url, CANCELLED)
