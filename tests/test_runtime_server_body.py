"""The JSON of a request: strict, and refused before it costs anything."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from fake_model import FakeCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.convert.errors import BadRequest
from ingle.runtime.server import body
from served import Served, served

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake")) as running:
        yield running


RAW_BODIES: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"x"',
    b"5",
    b"\xff\xfe{\x00",
    b'\xef\xbb\xbf{"model": "fake"}',
    b'{"model": "\xed\xa0\x80"}',
    b'{"model": "\\ud800"}',
    b'{"\\udfff": 1}',
    b'{"model": "fake", "model": "other"}',
    b'{"temperature": NaN}',
    b'{"temperature": Infinity}',
    b'{"temperature": -Infinity}',
    b'{"temperature": 1e400}',
    b'{"seed": 111111111111111111111}',
    b'{"seed": ' + b"1" * 5000 + b"}",
    b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"a": ' * 100_000,
    b"[" * 100_000,
    b'{"a": "\x00"}',
]


@pytest.mark.parametrize("raw", RAW_BODIES, ids=lambda raw: repr(raw[:20]))
def test_bodies_that_are_not_strict_json(server: Served, raw: bytes) -> None:
    answered = server.ask("POST", CHAT, raw=raw)
    assert answered.status == 400
    assert answered.error["code"] == "invalid_request"


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(body.parse(data), dict)


def test_depth_is_counted_exactly() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert body.parse(nested(body.MOST_DEPTH))
    with pytest.raises(BadRequest, match="levels"):
        body.parse(nested(body.MOST_DEPTH + 1))


def test_a_declared_size_is_refused_before_it_arrives(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {body.MOST_BYTES + 1}\r\n\r\n".encode()
        )
        answer = link.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


def test_an_undeclared_size_is_refused_when_it_is_reached(server: Served) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(body.MOST_BYTES // 0x10000 + 1):
            link.sendall(chunk)
        answer = link.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_large_body_below_the_limit_is_read(server: Served) -> None:
    answered = server.chat(messages=[{"role": "user", "content": "x" * (body.MOST_BYTES - 1000)}])
    assert answered.status == 200


def test_a_body_that_never_ends_is_given_up(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "DEADLINE_S", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(f'POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{{"model"'.encode())
        answer = link.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
