"""How long models stay in memory, said by body, header and options; and ``ingle ps``, ``load``, ``unload``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_model import FakeCatalog, Script
from ingle.runtime.server.keeping import HEADER
from ingle.runtime.server.listening import ServeOptions
from ingle.runtime.server.pool import Installed
from ingle.runtime.server.surface import ROUTES
from served import Served, served
from shell import finished

HELLO = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/chat/completions/input_tokens": {"messages": HELLO},
    "/v1/completions": {"prompt": "hi"},
    "/completion": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/embeddings": {"input": "hi"},
    "/v1/rerank": {"query": "hi", "documents": ["hi"]},
    "/v1/classify": {"input": "hi"},
    "/v1/tasks/embeddings": {"input": "hi"},
    "/embed": {"inputs": "hi"},
    "/rerank": {"query": "hi", "texts": ["hi"]},
    "/predict": {"inputs": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/api/chat": {"messages": HELLO, "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/tokenize": {"content": "hi"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": HELLO},
}


def left_s(server: Served) -> float:
    """Seconds for which the fake model is kept."""
    facts = server.ask("GET", "/v1/models/fake").json["ingle"]
    return facts.get("expires_at", math.inf) - time.time() if facts["loaded"] else 0


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_every_dialect_may_say_how_long() -> None:
    kept = {route.path for route in ROUTES if "keep_alive" in route.names}
    assert {path.replace("tasks/embeddings", "tasks/{task}") for path in BODIES} == kept
    with served(FakeCatalog("fake")) as server:
        assert left_s(server) == math.inf
        for path, body in BODIES.items():
            server.ask("POST", path, {"model": "fake", **body, "keep_alive": "2m"})
            assert 110 < left_s(server) < 130, path
            server.ask("POST", path, {"model": "fake", **body}, headers={HEADER: "-1"})
            assert left_s(server) == math.inf, path
            wrong = server.ask("POST", path, {"model": "fake", **body, "keep_alive": "soon"})
            assert wrong.status == 400 and "keep_alive is a duration" in wrong.body.decode(), path
            wrong = server.ask("POST", path, {"model": "fake", **body}, headers={HEADER: "soon"})
            assert wrong.status == 400 and f"{HEADER} is a duration" in wrong.body.decode(), path


def test_the_body_s_word_counts_before_the_header_s() -> None:
    with served(FakeCatalog("fake")) as server:
        body = {"model": "fake", "messages": HELLO, "keep_alive": 300}
        server.ask("POST", "/v1/chat/completions", body, headers={HEADER: "1s"})
        assert 290 < left_s(server) < 310


def test_a_request_that_says_nothing_changes_nothing_but_the_clock_s_start() -> None:
    with served(FakeCatalog("fake", script=Script(piece_s=0.1))) as server:
        server.chat(keep_alive="0.4s")
        for _ in range(3):
            assert server.chat().status == 200  # half a second each, in which the model is at work
        assert len(server.catalog.loads) == 1
        assert soon(lambda: server.model.closed)
        assert server.chat().status == 200
        time.sleep(0.6)
        assert left_s(server) == math.inf, "what was said of the copy before is forgotten"


class Catalog(FakeCatalog):
    """The model ``brief`` is kept for a tenth of a second."""

    def list(self) -> list[Installed]:
        return [replace(one, keep_alive_s=0.1) if one.name == "brief" else one for one in super().list()]


def test_the_server_and_each_model_may_have_a_usual_time() -> None:
    with served(Catalog("fake", "brief"), ServeOptions(port=0, keep_alive_s=60)) as server:
        assert 50 < left_s(server) < 70
        server.chat(model="brief")
        assert soon(lambda: server.model.closed) and server.model.info.name == "brief"
        server.chat(keep_alive="1h")
        server.chat()
        assert 3500 < left_s(server) < 3700


def test_load_ps_and_unload() -> None:
    with served(FakeCatalog("fake", "org/other:Q8_0")) as server:
        code, out, said = finished("load", "org/other:Q8_0", "--keep-alive", "10m", "--url", server.url)
        assert (code, out) == (0, "") and "org/other:Q8_0 is in memory after" in said
        code, out, _ = finished("ps", "--url", server.url)
        rows = {line.split()[0]: line for line in out.splitlines()}
        assert "9 min 5" in rows["org/other:Q8_0"] or "10 min 00 s" in rows["org/other:Q8_0"]
        assert "until room is needed" in rows["fake"]
        code, _, said = finished("unload", "org/other:Q8_0", "--url", server.url)
        assert code == 0 and "is out of memory" in said
        assert [model.closed for model in server.catalog.loads] == [False, True]
        code, _, said = finished("unload", "org/other:Q8_0", "--url", server.url)
        assert code == 0 and "was not in memory" in said
        for command in ("load", "unload"):
            code, _, said = finished(command, "nobody", "--url", server.url)
            assert code == 2 and "there is no model 'nobody' here; available: fake" in said


@pytest.mark.parametrize("command", [("ps",), ("load", "fake"), ("unload", "fake")])
def test_without_a_server_or_a_key_they_say_what_to_do(command: tuple[str, ...], free_port: int) -> None:
    code, out, said = finished(*command, "--url", f"http://127.0.0.1:{free_port}")
    assert (code, out) == (2, "") and "no server answers" in said and "ingle serve" in said
    with served(FakeCatalog("fake"), ServeOptions(port=0, api_key="ключ")) as server:
        code, out, said = finished(*command, "--url", server.url)
        assert (code, out) == (2, "") and "wants an API key" in said and "INGLE_API_KEY" in said
        assert finished(*command, "--url", server.url, "--api-key", "ключ")[0] == 0
