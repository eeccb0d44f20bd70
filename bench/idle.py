"""A server that nobody asks: when it listens, what it costs while it is idle, and how quickly a model is back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from .client import ask
from .facts import vocabulary
from .finding import Finding
from .machine import cpu_seconds
from .peers import INGLE, Server, free_port, running

IDLE_S = 60.0
LISTENING_S = 0.7
IDLE_SHARE = 0.0005
BACK_S = 1.0
AWAKE_S = 0.5
RESTING_SHARE = 0.75
GIVEN_UP_SHARE = 0.5
CONVERSATIONS, CONVERSATION_TOKENS = 7, 2000
SHORT_KEEP = "1s"
SHORT_REST = "1"
LIMIT_S = 60.0


def findings(model: Path) -> list[Finding]:
    return [*listening(model), idle(model), *rested(model), *back(model)]


def listening(model: Path) -> list[Finding]:
    """Seconds from the start of the process: best of five."""
    times = [started(model) for _ in range(5)]
    return [
        Finding(
            "server: start to listening", min(first for first, _, _ in times), LISTENING_S, "s", detail="best of 5"
        ),
        Finding("server: start to an answer", min(answer for _, answer, _ in times), LISTENING_S + 0.5, "s"),
        Finding("server: start to a first token", min(token for _, _, token in times), LISTENING_S + 2.0, "s"),
    ]


def started(model: Path) -> tuple[float, float, float]:
    """Until somebody listens, until the models are listed, until one has written."""
    words, port = vocabulary(model), free_port()
    began = time.perf_counter()
    with running(command(model, port), stdout=subprocess.DEVNULL) as process:
        wait_until_listening(port)
        listens = time.perf_counter() - began
        one = named(process, port, words)
        answers = time.perf_counter() - began
        one.complete(one.fresh_tokens(16), 1)
        return listens, answers, time.perf_counter() - began


def rested(model: Path) -> list[Finding]:
    """A model whose cache, full of conversations that may go nowhere else, was given back while it was idle, and its
    next request."""
    with server(model, "--rest-after", SHORT_REST, "--cache-ram", "0") as one:
        for _ in range(CONVERSATIONS):
            one.complete(one.fresh_tokens(CONVERSATION_TOKENS), 8)
        loaded = resident(one.process)
        deadline = time.monotonic() + LIMIT_S
        while state(one) != "resting" and time.monotonic() < deadline:
            time.sleep(0.1)
        left = resident(one.process)
        began = time.perf_counter()
        one.complete(one.fresh_tokens(16), 1)
        seconds = time.perf_counter() - began
    detail = f"{left / 1e6:.0f} of {loaded / 1e6:.0f} MB"
    return [
        Finding("while it rests: resident by loaded", left / loaded, RESTING_SHARE, detail=detail),
        Finding("request to a first token of a model that rests", seconds, AWAKE_S, "s"),
    ]


def state(server: Server) -> str:
    return str(asyncio.run(ask(f"{server.url}/v1/models")).json()["data"][0]["ingle"]["state"])


def idle(model: Path) -> Finding:
    with server(model) as one:
        one.complete(one.fresh_tokens(16), 8)
        time.sleep(2.0)
        before, woken = cpu_seconds(one.process), switches(one.process)
        time.sleep(IDLE_S)
        share, woken = (cpu_seconds(one.process) - before) / IDLE_S, switches(one.process) - woken
    detail = f"over {IDLE_S:.0f} s; {woken / IDLE_S:.1f} wake-ups a second"
    return Finding("server, model loaded, nobody asks: share of a core", share, IDLE_SHARE, detail=detail)


def back(model: Path) -> list[Finding]:
    """A model that was given up, and its next request."""
    with server(model, "--keep-alive", SHORT_KEEP) as one:
        one.complete(one.fresh_tokens(16), 8)
        loaded = resident(one.process)
        deadline = time.monotonic() + LIMIT_S
        while one.process.children() and time.monotonic() < deadline:
            time.sleep(0.1)
        left = resident(one.process)
        began = time.perf_counter()
        one.complete(one.fresh_tokens(16), 1)
        seconds = time.perf_counter() - began
    detail = f"{left / 1e6:.0f} of {loaded / 1e6:.0f} MB"
    return [
        Finding("after the keep-alive: resident by loaded", left / loaded, GIVEN_UP_SHARE, detail=detail),
        Finding("request to a first token of a model that was given up", seconds, BACK_S, "s"),
    ]


def resident(process: psutil.Process) -> int:
    return sum(member.memory_info().rss for member in (process, *process.children(recursive=True)))


def switches(process: psutil.Process) -> int:
    """Times that a thread of the server or its engine was woken."""
    return sum(
        int(line.split()[1])
        for member in (process, *process.children(recursive=True))
        for task in Path(f"/proc/{member.pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


@contextlib.contextmanager
def server(model: Path, *options: str, words: int | None = None) -> Iterator[Server]:
    """One that answers; its model may still be loading."""
    port = free_port()
    with running(command(model, port, *options), stdout=subprocess.DEVNULL) as process:
        wait_until_listening(port)
        yield named(process, port, words or vocabulary(model))


def command(model: Path, port: int, *options: str) -> list[str]:
    return [*INGLE, "serve", str(model), "--port", str(port), "--log-level", "error", "--threads", "2", *options]


def named(process: subprocess.Popen[str], port: int, words: int) -> Server:
    url = f"http://127.0.0.1:{port}"
    name = asyncio.run(ask(f"{url}/v1/models")).json()["data"][0]["id"]
    return Server("ingle serve", url, name, psutil.Process(process.pid), words)


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S):
            return
        time.sleep(0.005)
    raise RuntimeError(f"nobody listens on port {port}")
