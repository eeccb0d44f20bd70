"""Who is measured: ``ingle serve``, ``llama-server`` and ``llama-bench`` on the same file with the same threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from .client import Answer, ask

START_LIMIT_S = 120.0
INGLE = (sys.executable, "-c", "from ingle.runtime.cli.main import main; main()")
SHORT_PROMPT_TOKENS = 8


class Contender(Protocol):
    """One side of a comparison."""

    name: str

    def decode(self, tokens: int, depth: int) -> float:
        """Tokens per second of one stream that writes ``tokens`` tokens after a prompt of ``depth``."""

    def prefill(self, tokens: int) -> float:
        """Tokens per second of reading a prompt of ``tokens`` tokens that nobody saw before."""


@dataclass
class Server:
    """A server that speaks OpenAI's completions; ``process`` is the one we started, its children belong to it."""

    name: str
    url: str
    model: str
    process: psutil.Process
    vocabulary: int

    def __post_init__(self) -> None:
        self._random = random.Random(0)

    def fresh_tokens(self, count: int) -> list[int]:
        """Token ids that no cache can know."""
        return [self._random.randrange(300, self.vocabulary) for _ in range(count)]

    def distinct_tokens(self, count: int) -> list[int]:
        """Such token ids, none of them twice."""
        return self._random.sample(range(300, self.vocabulary), count)

    def body(self, prompt: Sequence[int], tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def complete(self, prompt: Sequence[int], tokens: int) -> Answer:
        answer = asyncio.run(ask(f"{self.url}/v1/completions", self.body(prompt, tokens)))
        if answer.usage.get("completion_tokens") != tokens:
            raise RuntimeError(f"{self.name} wrote {answer.usage} tokens instead of {tokens}")
        return answer

    def decode(self, tokens: int, depth: int) -> float:
        return self.complete(self.fresh_tokens(max(depth, SHORT_PROMPT_TOKENS)), tokens).decode_tokens_per_s

    def prefill(self, tokens: int) -> float:
        return self.complete(self.fresh_tokens(tokens), 1).prefill_tokens_per_s


@dataclass
class LlamaBench:
    """llama.cpp's own measure of its kernels: no server, no sampling, no text. Loads and warms up each time."""

    binary: Path
    model: Path
    threads: int
    name: str = "llama-bench"

    def decode(self, tokens: int, depth: int) -> float:
        return self._run("-p", "0", "-n", str(tokens), "-d", str(depth))

    def prefill(self, tokens: int) -> float:
        return self._run("-p", str(tokens), "-n", "0")

    def _run(self, *test: str) -> float:
        command = [str(self.binary), "-m", str(self.model), "-t", str(self.threads), "-r", "1", "-o", "json", *test]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        return float(json.loads(done.stdout)[0]["avg_ts"])


@contextlib.contextmanager
def ingle_server(model: Path, vocabulary: int, *options: str) -> Iterator[Server]:
    command = [*INGLE, "serve", str(model), "--port", "0", "--log-level", "error", *options]
    with running(command, stdout=subprocess.PIPE) as process:
        url = ready_url(process)
        name = asyncio.run(ask(f"{url}/v1/models")).json()["data"][0]["id"]
        yield Server("ingle serve", url, name, psutil.Process(process.pid), vocabulary)


@contextlib.contextmanager
def llama_server(
    binary: Path, model: Path, vocabulary: int, *options: str, name: str = "llama-server"
) -> Iterator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), *options]
    with running(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_health(url, process)
        yield Server(name, url, str(model), psutil.Process(process.pid), vocabulary)


@contextlib.contextmanager
def running(command: Sequence[str], stdout: int, stderr: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """``command`` until the block ends; ``stderr`` None shows its complaints."""
    with subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def ready_url(process: subprocess.Popen[str]) -> str:
    """The URL of the ready line. Raises RuntimeError when the server ends without one."""
    for line in process.stdout or ():
        if found := re.search(r"http://[\w.:\[\]]+", line):
            return found.group()
    raise RuntimeError(f"ingle serve ended with code {process.wait()} before it was ready")


def wait_for_health(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, RuntimeError):
            asyncio.run(ask(f"{url}/health"))
            return
        time.sleep(0.2)
    raise RuntimeError(f"{process.args!r} did not become ready")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
