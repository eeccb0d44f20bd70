"""Any JSON in any known field of any route: taken, or refused with a 4xx in the shape of the dialect; never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from answers import HERMES, TOOLS
from fake_model import FakeCatalog, Script
from hypothesis import given, settings
from hypothesis import strategies as st
from ingle.runtime.server.listening import ServeOptions
from ingle.runtime.server.surface import ROUTES, Route
from served import Served, served

BODIES = {route.path: route for route in ROUTES if route.fields is not None}
ASK = [{"role": "user", "content": "hi"}]
GOOD: dict[str, Any] = {
    "model": "fake",
    "messages": ASK,
    "prompt": "hi",
    "input": "hi",
    "content": "hi",
    "tokens": [1],
    "max_tokens": 5,
    "tools": TOOLS,
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["auto", "none", "required", "user", "assistant", "tool", "json", "text", "function", "message", "{}"]
    )
)
KEYS = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "text",
        "name",
        "function",
        "parameters",
        "input",
        "format",
        "schema",
        "tool_calls",
        "id",
        "x",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    script = Script(("a", " b"), template=HERMES + "{# enable_thinking #}")
    with served(FakeCatalog("fake", script=script), ServeOptions(port=0, admin=True)) as running:
        yield running


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_json_in_any_field_is_taken_or_refused(server: Served, path: str, data: st.DataObject) -> None:
    route: Route = BODIES[path]
    names = data.draw(st.lists(st.sampled_from(route.names), max_size=2))
    changes = {name: data.draw(VALUES) for name in names if name != "model" or path not in ("/api/pull", "/api/delete")}
    known = {name: value for name, value in GOOD.items() if name in route.names}
    if path in ("/api/pull", "/api/delete"):
        known["model"] = "../nobody"
    server.catalog.names[:] = ["fake"]
    answered = server.ask(route.method, path, known | changes)
    assert answered.status < 500, answered.body
    if answered.status >= 400:
        assert answered.json.get("error"), answered.body
    elif answered.headers.get("content-type", "").startswith("application/json") and answered.body:
        json.loads(answered.body)
