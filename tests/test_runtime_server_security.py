"""Who may talk to the server: names, pages, keys, addresses, slow and numerous connections."""

from __future__ import annotations

import ast
import inspect
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_model import FakeCatalog
from fastapi.routing import APIRoute
from ingle.convert.errors import BadRequest, InputError
from ingle.runtime.server import connection, security, serve, surface
from ingle.runtime.server.app import create_app
from ingle.runtime.server.exchange import Exchange
from ingle.runtime.server.listening import ServeOptions, listen
from ingle.runtime.server.metrics import Metrics
from ingle.runtime.server.pool import Pool
from ingle.runtime.server.security import Rules, hostname
from ingle.runtime.server.traffic import Traffic
from served import Served, served

KEY = "s3cret-ключ"
OPEN = {("GET", path) for path in ("/health", "/", "/page/{file}")}
ROUTES = {(route.method, path) for route in surface.ROUTES for path in (route.path, *route.also)}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake"), ServeOptions(port=0, allowed_hosts=("Kitchen.local",))) as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[Served]:
    with served(FakeCatalog("fake"), ServeOptions(port=0, api_key=KEY)) as running:
        yield running


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80", "kitchen.local:9"]
)
def test_our_own_names(server: Served, host: str) -> None:
    assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "localhost.",
        "127.0.0.1.nip.io",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "127.0.0.2",
        "[::]",
        "::1",
        "user@localhost",
        "localhost:x",
        "localhost:",
        ":80",
        "",
        "other.kitchen.local",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/health")]
)
def test_foreign_names_are_refused(server: Served, host: str, method: str, path: str) -> None:
    answered = server.ask(method, path, {} if method == "POST" else None, headers={"Host": host})
    assert answered.status == 403
    assert answered.error["code"] == "forbidden"
    assert "--allowed-host" in answered.error["message"]


@pytest.mark.parametrize(
    "head", [b"GET /health HTTP/1.0\r\n", b"GET /health HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n"]
)
def test_no_name_or_two_are_refused(server: Served, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(head + b"\r\n")
        assert link.recv(100).split()[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_pages_of_others_are_refused_and_get_no_permission(server: Served, headers: dict[str, str], kind: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        path = "/v1/chat/completions" if method != "GET" else "/v1/models"
        answered = server.ask(method, path, headers=headers | {"Content-Type": kind})
        assert answered.status == 403
        assert not any(name.lower().startswith("access-control") for name in answered.headers)


def test_a_page_of_our_own_may_call(server: Served) -> None:
    host = f"localhost:{server.port}"
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert server.ask("GET", "/v1/models", headers=headers).status == 200


def test_the_routes_are_these(tmp_path: Path) -> None:
    pool = Pool(FakeCatalog("fake"), max_models=1)
    app = create_app(Exchange(pool, Metrics(pool.loaded)), Rules(), Traffic())
    routes = {
        (method, route.path.replace(":path", ""))
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes == ROUTES
    assert len(app.routes) == len(ROUTES)


@pytest.mark.parametrize(("method", "path"), sorted(ROUTES - OPEN))
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY.encode().decode('latin-1')}x"},
        {"Authorization": f"Basic {KEY.encode().decode('latin-1')}"},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
    ],
)
def test_every_route_wants_the_key(locked: Served, method: str, path: str, headers: dict[str, str]) -> None:
    answered = locked.ask(method, path.replace("{name}", "fake"), headers=headers)
    assert answered.status == 401
    if not path.startswith(("/api/", "/v1/messages")):
        assert answered.error["code"] == "invalid_api_key"
    assert answered.headers["www-authenticate"] == "Bearer"
    assert "s3cret" not in answered.body.decode()


@pytest.mark.parametrize(
    "path", ["//health", "/health/", "/Health", "/v1/../health", "/absent", "//", "/page", "/pages/app.js"]
)
def test_nothing_but_health_and_the_page_is_open(locked: Served, path: str) -> None:
    assert locked.ask("GET", path).status == 401


def test_the_key_opens(locked: Served) -> None:
    sent = KEY.encode().decode("latin-1")
    assert locked.ask("GET", "/health").status == 200
    assert locked.ask("GET", "/v1/models", headers={"x-api-key": sent}).status == 200
    assert locked.ask("GET", "/v1/models", headers={"Authorization": f"bearer {sent}"}).status == 200


def test_no_comparison_but_compare_digest_sees_the_key() -> None:
    comparisons = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(inspect.getsource(security)))
        if isinstance(node, ast.Compare) and "key" in ast.unparse(node)
    ]
    assert comparisons
    assert all(comparison.startswith("self.api_key is not None") for comparison in comparisons)


@pytest.mark.parametrize(
    ("host", "expected"), [("a:1", "a"), ("[::1]:5", "[::1]"), ("A", "a"), ("a:", None), ("", None)]
)
def test_hostname(host: str, expected: str | None) -> None:
    assert hostname(host) == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(BadRequest, match="API key"):
        listen(ServeOptions(host=host, port=0))
    assert BadRequest.exit_code == 2


def test_with_a_key_every_address_may_be_bound() -> None:
    with listen(ServeOptions(host="0.0.0.0", port=0, api_key=KEY)) as listener:
        assert serve.url_of(listener).startswith("http://127.0.0.1:")


def test_an_address_in_use_is_named() -> None:
    with listen(ServeOptions(port=0)) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=str(port)):
            listen(ServeOptions(port=port))


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(InputError, match="no address"):
        listen(ServeOptions(host="no such host"))


def test_the_server_listens_on_one_address_only(server: Served) -> None:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert [address for address in listening if int(address.split(":")[1], 16) == server.port] == [
        f"0100007F:{server.port:04X}"
    ]


def test_headers_that_drip_in_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_DEADLINE_S", 0.4)
    with (
        served(FakeCatalog("fake")) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as link,
    ):
        began = time.monotonic()
        with pytest.raises(OSError):  # reset or broken pipe, as the kernel likes
            while time.monotonic() - began < 5:
                link.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("size", [30_000, 200_000])
def test_headers_too_large_are_refused(server: Served, size: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size)
        answer = link.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "invalid_request"


def test_too_many_connections_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 3)
    with served(FakeCatalog("fake")) as server:
        links = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
        time.sleep(0.1)
        refused = server.ask("GET", "/health")
        for link in links:
            link.close()
        assert refused.status == 503
        assert refused.error["code"] == "overloaded"
        assert refused.headers["Retry-After"] == "1"
        time.sleep(0.1)
        assert server.ask("GET", "/health").status == 200


SMUGGLING = [
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n{}xx",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET /health\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
    b"GET /he alth HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


@pytest.mark.parametrize("raw", SMUGGLING, ids=range(len(SMUGGLING)))
def test_ambiguous_http_is_refused(server: Served, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        link.sendall(raw)
        assert link.recv(100).split()[1].startswith(b"4")
    assert server.ask("GET", "/health").status == 200
