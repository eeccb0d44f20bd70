"""Clients that leave, wait or come together: work stops with the one who asked for it, and nobody else notices."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from fake_model import PIECES, FakeCatalog, Script, Work
from ingle.convert.errors import QueueFull
from ingle.runtime.server import sse
from served import Served, served

CANCEL_S = 0.25
SLOW = Script(pieces=("word ",) * 200, piece_s=0.02)
HELLO: Any = [{"role": "user", "content": "hi there"}]


def until(true: Callable[[], Any], patience_s: float = 5.0) -> Any:
    """The first true value of ``true()``."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.005)
    raise AssertionError("it did not happen")


def started(server: Served, count: int = 1) -> Work:
    """The last of ``count`` works the engine has got."""
    return until(lambda: server.catalog.loads and len(server.model.works) >= count and server.model.works[count - 1])


def raw_chat(server: Served, stream: bool, route: str = "/v1/chat/completions") -> socket.socket:
    """A connection that has sent a whole request and reads nothing."""
    prompt = {"messages": HELLO} if "chat" in route else {"prompt": ["hi", "there"]}
    body = json.dumps({"model": "fake", "stream": stream, **prompt}).encode()
    link = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    link.sendall(f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return link


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [Script(prefill_s=30), SLOW], ids=["prefill", "decode"])
def test_work_stops_when_its_client_leaves(script: Script, stream: bool, route: str) -> None:
    with served(FakeCatalog("fake", script=script)) as server:
        link = raw_chat(server, stream, route)
        work = started(server, 1 if "chat" in route else 2)
        time.sleep(0.1)
        assert not work.cancelled.is_set()
        left_at = time.monotonic()
        link.close()
        assert all(work.cancelled.wait(5) for work in server.model.works)
        assert max(work.cancelled_at for work in server.model.works) - left_at < CANCEL_S


def test_a_client_may_leave_while_its_request_is_being_submitted() -> None:
    """A template takes long to render; what comes of it is cancelled as soon as there is something."""
    with served(FakeCatalog("fake", script=Script(prefill_s=30))) as server:
        submit = server.model.chat
        entered, go_on = threading.Event(), threading.Event()

        def slow_chat(*given: Any, **asked: Any) -> Any:
            entered.set()
            go_on.wait(5)
            return submit(*given, **asked)

        server.model.chat = slow_chat  # type: ignore[method-assign]
        link = raw_chat(server, stream=True)
        assert entered.wait(5)
        link.close()
        time.sleep(0.1)
        go_on.set()
        assert started(server).cancelled.wait(5)


def test_leaving_the_official_client_s_stream_cancels_it() -> None:
    with served(FakeCatalog("fake", script=SLOW)) as server, server.client() as client:
        stream = client.chat.completions.create(model="fake", messages=HELLO, stream=True)
        for _, _chunk in zip(range(3), stream, strict=False):
            pass
        left_at = time.monotonic()
        stream.close()
        assert started(server).cancelled.wait(5)
        assert started(server).cancelled_at - left_at < CANCEL_S


def test_one_who_leaves_disturbs_nobody_else() -> None:
    with served(FakeCatalog("fake", script=Script(piece_s=0.05))) as server, server.client() as client:
        with client.chat.completions.create(model="fake", messages=HELLO, stream=True) as stream:
            chunks = iter(stream)
            next(chunks)
            link = raw_chat(server, stream=True)
            started(server, 2)
            link.close()
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == "".join(PIECES)
        assert not server.model.works[0].cancelled.is_set()


def test_a_finished_request_is_not_cancelled() -> None:
    with served(FakeCatalog("fake")) as server:
        assert server.chat().status == 200
        assert server.chat(stream=True).status == 200
        assert not any(work.cancelled.is_set() for work in server.model.works)


def test_eight_streams_at_once_each_get_their_own_answer_and_lists_stay_quick() -> None:
    texts: dict[int, str] = {}
    with served(FakeCatalog("fake", script=SLOW)) as server, server.client(max_retries=0) as client:

        def chat(number: int) -> None:
            with client.chat.completions.create(
                model="fake", messages=HELLO, stream=True, max_tokens=50 + number
            ) as stream:
                texts[number] = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        threads = [threading.Thread(target=chat, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        started(server, 8)
        waits = []
        while any(thread.is_alive() for thread in threads):
            for path in ("/v1/models", "/health"):
                began = time.perf_counter()
                assert server.ask("GET", path).status == 200
                waits.append(time.perf_counter() - began)
        for thread in threads:
            thread.join()
    assert texts == {number: "word " * (50 + number) for number in range(8)}
    assert len(waits) > 10
    assert statistics.median(waits) < 0.05


def test_the_loop_is_free_while_a_template_renders_and_a_model_loads() -> None:
    catalog = FakeCatalog("fake", "slow")
    with served(catalog) as server:
        catalog.load_s = 1.0
        submit = server.model.chat

        def slow_chat(*given: Any, **asked: Any) -> Any:
            time.sleep(1.0)
            return submit(*given, **asked)

        server.model.chat = slow_chat  # type: ignore[method-assign]
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda model=model: answers.append(server.chat(model=model).status))
            for model in ("fake", "slow", "slow")
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        began = time.perf_counter()
        for _ in range(5):
            assert server.ask("GET", "/v1/models").status == 200
        waited_s = time.perf_counter() - began
        for thread in threads:
            thread.join()
    assert answers == [200, 200, 200]
    assert waited_s < 0.5


def test_a_long_prefill_keeps_the_connection_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.1)
    with served(FakeCatalog("fake", script=Script(prefill_s=0.55))) as server:
        body = server.chat(stream=True).body.decode()
        with (
            server.client() as client,
            client.chat.completions.create(model="fake", messages=HELLO, stream=True) as stream,
        ):
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert body.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert body.endswith("data: [DONE]\n\n")
    assert text == "".join(PIECES)


def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_DEADLINE_S", 0.3)
    flood = Script(pieces=("x" * 100_000,) * 500)
    with served(FakeCatalog("fake", script=flood)) as server:
        link = raw_chat(server, stream=True)
        ended = b'ingle_http_requests_total{method="POST",route="/v1/chat/completions"'
        until(lambda: ended in server.ask("GET", "/metrics").body)
        link.close()


def test_a_full_queue_lets_the_client_try_again() -> None:
    with served(FakeCatalog("fake", script=Script(prefill_s=0.5, queue=1))) as server:
        link = raw_chat(server, stream=True)
        started(server)
        refusal = server.chat()
        assert (refusal.status, refusal.error["code"]) == (503, QueueFull.code)
        assert int(refusal.headers["retry-after"]) >= 1
        with server.client(max_retries=3) as client:
            assert client.chat.completions.create(model="fake", messages=HELLO).choices[0].finish_reason == "stop"
        link.close()


def test_a_prompt_list_longer_than_the_queue_is_answered_in_turns() -> None:
    with served(FakeCatalog("fake", script=Script(queue=4))) as server:
        answered = server.complete(prompt=["a"] * 30)
    assert answered.status == 200
    assert len(answered.json["choices"]) == 30


def test_one_bad_prompt_of_a_list_cancels_the_others() -> None:
    with served(FakeCatalog("fake", script=SLOW)) as server:
        answered = server.complete(prompt=["a", "b", "w " * 600])
        assert answered.error["code"] == "context_length_exceeded"
        assert all(work.cancelled.is_set() or work.ended.is_set() for work in server.model.works)


def test_the_official_client_times_out_cleanly() -> None:
    with served(FakeCatalog("fake", script=Script(prefill_s=30))) as server, server.client(timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="fake", messages=HELLO)
        assert started(server).cancelled.wait(5)
