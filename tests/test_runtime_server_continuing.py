"""A last message of the assistant is gone on from, unless the request says no."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_model import FakeCatalog
from served import Served, served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake")) as running:
        yield running


BEGUN = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"messages": BEGUN, "continue_final_message": False, "add_generation_prompt": False}, "add_generation_prompt"),
        ({"messages": BEGUN[:1], "add_generation_prompt": False}, "add_generation_prompt"),
        ({"messages": BEGUN, "continue_final_message": "both"}, "continue_final_message"),
    ],
)
def test_what_says_two_things_of_the_end_is_refused(server: Served, fields: dict[str, Any], param: str) -> None:
    answered = server.chat(**fields)
    assert (answered.status, answered.error["param"].split(".")[0]) == (400, param), answered.body


@pytest.mark.parametrize(
    ("fields", "continues"),
    [
        ({}, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, True),
        ({"continue_final_message": "content"}, "content"),
        ({"add_generation_prompt": True}, None),
        ({"continue_final_message": False}, None),
    ],
)
def test_a_last_message_of_the_assistant_is_continued(server: Served, fields: dict[str, Any], continues: Any) -> None:
    assert server.chat(messages=BEGUN, **fields).status == 200
    assert server.model.works[-1].asked.get("continue_final_message") == continues
