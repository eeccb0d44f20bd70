"""Hostile requests, to every route that takes a body and below them: each its 4xx, and the server alive behind them."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from answers import HERMES
from fake_model import FakeCatalog, Script
from ingle.runtime.server.listening import ServeOptions
from ingle.runtime.server.surface import ROUTES, Route
from served import Served, served

POSTED = [route for route in ROUTES if route.fields is not None]
HELLO = b'{"model": "fake", "messages": [{"role": "user", "content": "hi"}]}'
CHAT = "/v1/chat/completions"
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "half an object": b"{",
    "a list": b"[]",
    "null": b"null",
    "a number": b"5",
    "UTF-16": b"\xff\xfe{\x00}\x00",
    "an overlong slash": b'{"model": "\xc0\xaf"}',
    "half a surrogate": b'{"model": "\\ud800"}',
    "a mark of byte order": b'\xef\xbb\xbf{"model": "fake"}',
    "a key twice": b'{"model": "fake", "model": "fake"}',
    "NaN": b'{"model": NaN}',
    "an infinite number": b'{"model": 1e400}',
    "5,000 digits": b'{"model": ' + b"1" * 5000 + b"}",
    "65 levels": b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}",
    "100,000 levels": b'{"a": ' * 100_000,
    "two objects": b"{}{}",
    "compressed": gzip.compress(HELLO),
    "a form": b"model=fake&messages=hi",
}


def head(*lines: bytes, path: bytes = CHAT.encode(), method: bytes = b"POST", body: bytes = b"") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", *lines, b"", body])


LOCAL = b"Host: 127.0.0.1"
SIZE = b"Content-Length: %d" % len(HELLO)
CHUNKED = b"Transfer-Encoding: chunked"
LINES: dict[str, tuple[bytes, int]] = {
    "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "no version": (b"POST /health HTTP\r\nHost: x\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
    "no Host": (head(SIZE, body=HELLO), 400),
    "two Hosts": (head(LOCAL, b"Host: evil.example", SIZE, body=HELLO), 400),
    "a foreign Host": (head(b"Host: evil.example", SIZE, body=HELLO), 403),
    "a Host with a user": (head(b"Host: 127.0.0.1@evil.example", SIZE, body=HELLO), 403),
    "an empty Host": (head(b"Host:", SIZE, body=HELLO), 403),
    "a foreign origin": (head(LOCAL, b"Origin: http://evil.example", SIZE, body=HELLO), 403),
    "another site's fetch": (head(LOCAL, b"Sec-Fetch-Site: cross-site", SIZE, body=HELLO), 403),
    "two sizes": (head(LOCAL, SIZE, b"Content-Length: 3", body=HELLO), 400),
    "a negative size": (head(LOCAL, b"Content-Length: -5"), 400),
    "a size that is no number": (head(LOCAL, b"Content-Length: 0x10"), 400),
    "a size with a sign": (head(LOCAL, b"Content-Length: +5"), 400),
    "a gigabyte": (head(LOCAL, b"Content-Length: 1073741824"), 413),
    "a size and chunks": (head(LOCAL, SIZE, CHUNKED, body=b"0\r\n\r\n"), 400),
    "chunks, twice": (head(LOCAL, b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "an unknown coding": (head(LOCAL, b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400),
    "a chunk without a size": (head(LOCAL, CHUNKED, body=b"\r\nxx\r\n0\r\n\r\n"), 400),
    "a chunk of a negative size": (head(LOCAL, CHUNKED, body=b"-1\r\nx\r\n0\r\n\r\n"), 400),
    "a chunk of a huge size": (head(LOCAL, CHUNKED, body=b"f" * 30 + b"\r\n"), 400),
    "a space before the colon": (head(LOCAL, b"X-A : b", SIZE, body=HELLO), 400),
    "a header without a name": (head(LOCAL, b": b", SIZE, body=HELLO), 400),
    "a header of NUL": (head(LOCAL, b"X-A: a\x00b", SIZE, body=HELLO), 400),
    "a line that goes on at the start": (b"POST /x HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n", 400),
    "a header of 17 KiB": (head(LOCAL, b"X-A: " + b"a" * 17408, SIZE, body=HELLO), 431),
    "101 headers": (head(LOCAL, *[b"X-%d: a" % n for n in range(100)]), 431),
    "a path of 9 KiB": (head(LOCAL, path=b"/" + b"a" * 9216, method=b"GET"), 414),
    "a query of 9 KiB": (head(LOCAL, path=b"/health?" + b"a" * 9216, method=b"GET"), 414),
    "a path that climbs": (head(LOCAL, path=b"/v1/../../etc/passwd", method=b"GET"), 404),
    "an encoded path that climbs": (head(LOCAL, path=b"/v1/models/..%2f..%2fetc%2fpasswd", method=b"GET"), 404),
    "a path of NUL": (head(LOCAL, path=b"/v1/models/%00", method=b"GET"), 404),
    "a path of half a character": (head(LOCAL, path=b"/v1/models/%ff%fe", method=b"GET"), 404),
    "an unknown route": (head(LOCAL, path=b"/v1/pickles", method=b"GET"), 404),
    "a wrong method": (head(LOCAL, method=b"DELETE"), 405),
    "TRACE": (head(LOCAL, method=b"TRACE"), 405),
    "CONNECT": (head(LOCAL, path=b"evil.example:443", method=b"CONNECT"), 404),
    "a method of one's own": (head(LOCAL, method=b"EAT"), 405),
}
TOO_MUCH: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": "x"}] * 2049},
    "tools": {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(129)]},
    "choices": {"n": 1_000_000},
    "tokens": {"max_tokens": 2**62},
    "biases": {"logit_bias": {str(n): 1 for n in range(1025)}},
    "a biased token of another model": {"logit_bias": {"99999999": 1}},
    "stops": {"stop": ["x"] * 17},
    "logprobs": {"logprobs": True, "top_logprobs": 21},
    "a reference to elsewhere": {"json_schema": {"$ref": "http://evil.example/schema"}},
    "a reference to itself": {"json_schema": {"$ref": "#"}},
    "references that go round": {
        "json_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}
    },
    "a pattern that looks ahead": {"json_schema": {"type": "string", "pattern": "(?=a)"}},
    "a pattern without an end": {"regex": "(((("},
    "a grammar of nothing": {"grammar": "root ::= missing"},
    "a grammar that is none": {"grammar": "\x00"},
    "a grammar of 100,000 parentheses": {"grammar": "root ::= " + "(" * 100_000},
    "a picture from elsewhere": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]
    },
    "a template": {"chat_template": "{{ ''.__class__ }}"},
    "a template's insides": {"chat_template_kwargs": {"tokenize": True}},
    "a template's dunder": {"chat_template_kwargs": {"__class__": 1}},
    "another model": {"model": "../../etc/passwd"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", script=Script(template=HERMES)), ServeOptions(port=0, admin=True)) as running:
        yield running


@pytest.fixture(autouse=True)
def alive(server: Served) -> Iterator[None]:
    """Whatever was asked, the next one is answered."""
    yield
    assert server.ask("POST", CHAT, raw=HELLO).status == 200


def first_line(server: Served, data: bytes) -> int:
    """The status of what comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
        link.sendall(data)
        answer = link.makefile("rb").readline()
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer.split()[1])


@pytest.mark.parametrize("route", POSTED, ids=lambda route: route.path)
def test_bodies_that_are_no_objects_in_strict_json(server: Served, route: Route) -> None:
    path = route.path.replace("{task}", "fill-mask")
    for name, body in BODIES.items():
        answered = server.ask(route.method, path, raw=body)
        assert answered.status == 400, (name, answered.body)
        assert json.loads(answered.body)["error"], name


@pytest.mark.parametrize("name", LINES)
def test_requests_that_are_hardly_http(server: Served, name: str) -> None:
    data, status = LINES[name]
    assert first_line(server, data) == status


@pytest.mark.parametrize("name", TOO_MUCH)
def test_requests_that_ask_for_too_much(server: Served, name: str) -> None:
    answered = server.chat(**TOO_MUCH[name])
    assert answered.status == (404 if "model" in TOO_MUCH[name] else 400), answered.body
    assert answered.error["message"]


def test_there_are_300_of_them() -> None:
    assert len(POSTED) * len(BODIES) + len(LINES) + len(TOO_MUCH) >= 300
