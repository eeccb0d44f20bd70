"""Whose prompts the prefix cache knows: those of each API key by themselves, unless that is switched off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_model import FakeCatalog
from ingle.runtime.server.listening import ServeOptions
from served import Served, served

KEYS = ("first-key", "second-key")


@pytest.fixture(params=[False, True], ids=["apart", "shared"])
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    options = ServeOptions(port=0, api_key=KEYS[0], further_keys=KEYS[1:], share_cache=request.param)
    with served(FakeCatalog("fake"), options) as running:
        yield running


def test_each_key_has_a_prefix_cache_of_its_own(server: Served, request: pytest.FixtureRequest) -> None:
    for key in (KEYS[0], KEYS[1], KEYS[0]):
        server.client(api_key=key).completions.create(model="fake", prompt="hi")
        server.client(api_key=key).chat.completions.create(
            model="fake", messages=[{"role": "user", "content": "hi"}], max_tokens=2
        )
    if "shared" in request.node.name:
        assert server.model.owners == []
        return
    first, again, second, other, third, last = server.model.owners
    assert first == again == third == last != second == other
    assert not any(key in owner for key in KEYS for owner in server.model.owners)


def test_no_other_key_opens(server: Served) -> None:
    for headers in ({}, {"x-api-key": "third-key"}, {"Authorization": "Bearer first-key second-key"}):
        assert server.ask("GET", "/v1/models", headers=headers).status == 401


def test_without_keys_all_are_one() -> None:
    with served(FakeCatalog("fake")) as open_server:
        open_server.client(api_key="any").completions.create(model="fake", prompt="hi")
        assert open_server.model.owners == []
