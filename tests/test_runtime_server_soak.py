"""Clients that leave at any moment, and native crashes: work stops, neighbours write what they write alone, and the
server is there for the next one. A sample of it here; all of it under ``-m soak``."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import tasked
from ingle.convert import convert
from shell import ingle
from test_runtime_server_bard import Running, assert_same_up_to_a_tie, greedy

KINDS = ("queue", "prefill", "decode", "stream", "embed")
SIGNALS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGFPE)
FEW_LEAVE, MANY_LEAVE = 10, 300
FEW_CRASH, MANY_CRASH = 2, 100
STOPS_S = 0.25
BUSY_MACHINE_S = 2.0
"""The sample runs beside other tests, on cores that are not its own."""
NEIGHBOURS = 2
SLOTS = 4
PATIENCE_S = 60.0
LINE = "to be or not to be, that is the question " * 12


@pytest.fixture(scope="module")
def server(bard_gguf: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("reads")
    tasked.write(folder / "checkpoint", tasked.recipe("bert_states"))
    reads = convert(folder / "checkpoint", folder / "reads.gguf", "f32").path
    options = ("--kv-type", "f32", "--parallel", str(SLOTS), "--port", "0", "--log-level", "error")
    with ingle("serve", bard_gguf["f32"], reads, *options) as process:
        assert process.stdout is not None
        yield Running(process.stdout.readline().strip(), process.pid)
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


def figure(server: Running, name: str, model: str = "bard-f32") -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    wanted = f'ingle_engine_{name}{{model="{model}"}}'
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted)), 0.0)


def sent(server: Running, path: str, body: Mapping[str, Any]) -> http.client.HTTPConnection:
    link = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=PATIENCE_S)
    link.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return link


def request_of(kind: str, chance: random.Random) -> tuple[str, dict[str, Any]]:
    if kind == "embed":
        asked = {"model": "reads", "input": [LINE] * 200, "parameters": {"pooling": "mean"}}
        return "/v1/tasks/embeddings", asked
    tokens = [chance.randrange(300, 1800) for _ in range(900 if kind == "prefill" else 8)]
    prompts: Any = [tokens] * 64 if kind == "queue" else tokens
    wanted = {"prompt": prompts, "max_tokens": 100, "ignore_eos": True, "stream": kind == "stream"}
    return "/v1/completions", {"model": "bard-f32", **wanted}


def leaves(server: Running, kind: str, chance: random.Random, others: int) -> float:
    """A client asks for something, and leaves at some moment. Seconds until nobody computes for it."""
    link = sent(server, *request_of(kind, chance))
    if kind == "stream":
        response = link.getresponse()
        for _ in range(chance.randrange(1, 40)):
            response.readline()
    time.sleep(chance.uniform(0, 0.3 if kind == "embed" else 0.1))
    if link.sock is not None:
        link.sock.close()
    link.close()
    left = time.monotonic()
    return embedder_rests(server, left) if kind == "embed" else engine_rests(server, left, others)


def engine_rests(server: Running, left: float, others: int) -> float:
    while figure(server, "running") > others or figure(server, "waiting") > 0:
        assert time.monotonic() < left + PATIENCE_S
    return time.monotonic() - left


def embedder_rests(server: Running, left: float) -> float:
    """The child that reads texts is the one that holds the smaller model."""
    child = min(server.engines(), key=lambda process: process.memory_info().rss)
    last, used = left, busy(child)
    while time.monotonic() < last + STOPS_S:
        assert time.monotonic() < left + PATIENCE_S
        time.sleep(0.01)
        if (now := busy(child)) > used:
            last, used = time.monotonic(), now
    return last - left


def busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def leaving(server: Running, count: int, bound_s: float) -> None:
    chance = random.Random(2026)
    with server.client() as client, ThreadPoolExecutor(NEIGHBOURS) as pool:
        alone = [greedy(client, number) for number in range(NEIGHBOURS)]
        stops: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(count):
            kind = KINDS[turn % len(KINDS)]
            neighbours = [pool.submit(greedy, client, number) for number in range(NEIGHBOURS)] if turn % 2 else []
            stops[kind].append(leaves(server, kind, chance, len(neighbours)))
            for solo, neighbour in zip(alone, neighbours, strict=False):
                assert_same_up_to_a_tie(solo, neighbour.result(PATIENCE_S))
    worst = {kind: max(seconds) for kind, seconds in stops.items()}
    assert max(worst.values()) < bound_s, worst
    assert engine_rests(server, time.monotonic(), 0) < BUSY_MACHINE_S


def crashing(server: Running, count: int) -> None:
    chance = random.Random(7)
    with server.client() as client:
        for _ in range(count):
            neighbours = [threading.Thread(target=chats, args=(client, stream)) for stream in (True, False)]
            for neighbour in neighbours:
                neighbour.start()
            time.sleep(chance.uniform(0, 0.3))
            victim = max(server.engines(), key=lambda process: process.memory_info().rss)
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(victim.pid, chance.choice(SIGNALS))
            for neighbour in neighbours:
                neighbour.join(PATIENCE_S)
                assert not neighbour.is_alive()
            assert healthy(server)
            began = time.monotonic()
            again = client.with_options(max_retries=2).completions.create(model="bard-f32", prompt="KING", max_tokens=4)
            assert again.choices[0].text and time.monotonic() - began < PATIENCE_S


def chats(client: openai.OpenAI, stream: bool) -> None:
    """An answer, or an error that says what happened: never silence."""
    messages: Any = [{"role": "user", "content": "Who art thou?"}]
    try:
        answer = client.chat.completions.create(model="bard-f32", messages=messages, max_tokens=200, stream=stream)
        if stream:
            for _ in answer:
                continue
    except openai.APIError as error:
        assert error.body is None or "engine" in str(error.body), error.body


def healthy(server: Running) -> bool:
    with urllib.request.urlopen(f"{server.url}/health", timeout=PATIENCE_S) as response:
        return bool(response.status == 200)


def test_some_leave(server: Running) -> None:
    leaving(server, FEW_LEAVE, BUSY_MACHINE_S)


def test_some_crash(server: Running) -> None:
    crashing(server, FEW_CRASH)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_300_leave(server: Running) -> None:
    leaving(server, MANY_LEAVE, STOPS_S)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_100_crash(server: Running) -> None:
    crashing(server, MANY_CRASH)
