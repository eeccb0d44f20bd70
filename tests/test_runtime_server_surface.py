"""What the server says of itself is true: OpenAPI, the page at /docs, and docs/compatibility.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from answers import HERMES
from fake_model import FakeCatalog, Script
from ingle.runtime.server.surface import ROUTES, Route
from served import served

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "compatibility.md").read_text("utf-8")
HEADING = re.compile(r"^### `(\w+) (\S+)`$", re.M)
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def sections() -> dict[tuple[str, str], str]:
    found = list(HEADING.finditer(PAGE))
    ends = [match.start() for match in found[1:]] + [len(PAGE)]
    return {(m.group(1), m.group(2)): PAGE[m.end() : end] for m, end in zip(found, ends, strict=True)}


def rows(section: str) -> list[tuple[list[str], str]]:
    """The fields and the test of each row."""
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", cells[0]), cells[-1]) for cells in lines]


def test_the_page_has_every_route_and_no_other() -> None:
    assert set(sections()) == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_page_has_every_field_and_no_other(route: Route) -> None:
    names = [name for fields, _ in rows(sections()[route.method, route.path]) for name in fields]
    assert sorted(names) == sorted(route.names)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_row_names_a_test_that_is_there(route: Route) -> None:
    section = sections()[route.method, route.path]
    proofs = [proof for _, proof in rows(section)] or [section]
    for proof in proofs:
        found = TEST.search(proof)
        assert found, proof
        source = (ROOT / "tests" / found.group(1)).read_text("utf-8")
        assert f"def {found.group(2)}(" in source, found.group()


def test_the_page_names_every_other_path() -> None:
    for route in ROUTES:
        assert all(f"`{path}`" in sections()[route.method, route.path] for path in route.also)


def test_openapi_describes_every_route() -> None:
    with served(FakeCatalog("fake")) as server:
        described = server.ask("GET", "/openapi.json").json
    assert {(m.upper(), path) for path, item in described["paths"].items() for m in item} == {
        (route.method, route.path) for route in ROUTES
    }
    schemas = described["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/([\w.]+)", str(described)))
    assert references <= set(schemas)
    chat = schemas["openai_chat.ChatRequest"]
    assert {"model", "messages", "tools", "response_format"} <= set(chat["properties"])
    assert set(chat["required"]) == {"messages"}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    with served(FakeCatalog("fake", script=Script(template=HERMES))) as server:
        answered = server.ask("GET", "/docs")
    page = answered.body.decode()
    assert answered.headers["content-type"].startswith("text/html")
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert all(route.path in page for route in ROUTES)
