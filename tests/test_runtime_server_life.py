"""The server as a process: ready line, signals, draining, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_model import FakeCatalog
from ingle.runtime.server.listening import ServeOptions, listen
from ingle.runtime.server.serve import Stop, run

PROGRAM = Path(__file__).parent / "fake_model.py"
ROOT = PROGRAM.parent.parent


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def url_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def chat(url: str, **fields: Any) -> tuple[int, str]:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]} | fields
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def in_background(url: str, **fields: Any) -> queue.Queue[tuple[int, str]]:
    answers: queue.Queue[tuple[int, str]] = queue.Queue()
    threading.Thread(target=lambda: answers.put(chat(url, **fields)), daemon=True).start()
    time.sleep(0.3)
    return answers


def test_nobody_asks_and_nothing_wakes_up_yet_the_date_is_of_now() -> None:
    with process() as child:
        url = url_of(child)
        assert chat(url)[0] == 200
        time.sleep(0.5)
        asleep = psutil.Process(child.pid)
        before = asleep.num_ctx_switches().voluntary
        time.sleep(3.5)
        assert asleep.num_ctx_switches().voluntary - before <= 1
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/health")
        said = connection.getresponse().headers["date"]
        connection.close()
        assert abs(parsedate_to_datetime(said).timestamp() - time.time()) < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_ready_line_and_a_clean_end(number: signal.Signals) -> None:
    with process() as child:
        url = url_of(child)
        assert url.startswith("http://127.0.0.1:")
        assert chat(url)[0] == 200
        child.send_signal(number)
        rest, log = child.communicate(timeout=20)
    assert child.returncode == 0
    assert rest == ""
    assert "Traceback" not in log
    assert "native library loaded: False" in log


@pytest.mark.parametrize("stream", [False, True])
def test_a_signal_lets_running_requests_finish_and_no_new_ones_in(stream: bool) -> None:
    with process("--prefill", "1.5") as child:
        url = url_of(child)
        answers = in_background(url, stream=stream)
        child.terminate()
        time.sleep(0.3)
        status, refusal = chat(url)
        assert (status, json.loads(refusal)["error"]["code"]) == (503, "overloaded")
        status, text = answers.get(timeout=20)
        assert status == 200
        assert "time" in text
        assert child.wait(20) == 0


def test_what_does_not_finish_in_time_ends_with_an_error() -> None:
    with process("--piece", "0.2", "--drain", "0.3") as child:
        url = url_of(child)
        answers = in_background(url, stream=True)
        child.terminate()
        _, text = answers.get(timeout=20)
        assert '"error"' in text
        assert "[DONE]" not in text
        assert child.wait(20) == 0


def test_a_second_signal_ends_at_once() -> None:
    with process("--prefill", "60") as child:
        url = url_of(child)
        in_background(url)
        child.terminate()
        time.sleep(0.5)
        assert child.poll() is None
        began = time.monotonic()
        child.terminate()
        assert child.wait(20) == 0
        assert time.monotonic() - began < 6


def test_a_signal_while_a_model_loads_is_heard() -> None:
    with process("--load", "60") as child:
        assert child.stderr is not None
        while "loading fake" not in child.stderr.readline():
            continue
        child.terminate()
        output, _ = child.communicate(timeout=10)
    assert child.returncode == 0
    assert output == ""


def test_it_listens_while_a_model_loads_and_requests_wait_for_it() -> None:
    with process("--load", "1.5") as child:
        assert child.stderr is not None
        while "listening on " not in (line := child.stderr.readline()):
            continue
        url = line.split()[-1]
        assert health(url) == (503, {"status": "loading"})
        answers = in_background(url)
        assert answers.empty()
        assert url_of(child) == url
        assert health(url) == (200, {"status": "ok"})
        assert answers.get(timeout=20)[0] == 200


def health(url: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/health")
    response = connection.getresponse()
    status, body = response.status, json.loads(response.read())
    connection.close()
    return status, body


def test_idle_connections_do_not_hold_the_server_up() -> None:
    with process() as child:
        url = url_of(child)
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        began = time.monotonic()
        child.terminate()
        assert child.wait(20) == 0
        assert time.monotonic() - began < 5
        connection.close()


def test_the_first_who_asks_hears_that_it_loads() -> None:
    options = ServeOptions(port=0)
    listener = listen(options)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def asking() -> tuple[int, Any]:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return health(url)

    async def main() -> tuple[int, Any]:
        stop = Stop()
        first = asyncio.create_task(asyncio.to_thread(asking))
        serving = asyncio.create_task(run(listener, options, FakeCatalog("fake", load_s=1.0), ["fake"], print, stop))
        heard = await first
        stop.ask()
        await serving
        return heard

    assert asyncio.run(main()) == (503, {"status": "loading"})
