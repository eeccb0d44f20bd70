"""The chat page in headless Chromium: what a person does with it, and what reaches the model. ``make page-test``."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from answers import THINKING
from browsing import Visit, chromium
from fake_model import FakeCatalog, Script
from ingle.convert.errors import EngineCrashed
from ingle.runtime.server.listening import ServeOptions
from seeing import picture
from served import Served, served

pytestmark = pytest.mark.browser
KEY = "s3cret-ключ"
Enter = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Any) -> Iterator[Enter]:
    """``visit(script, **settings)`` → a server with a fake model, and the page on it."""
    with contextlib.ExitStack() as stack:

        def enter(script: Script | None = None, **settings: Any) -> tuple[Served, Visit]:
            catalog = settings.pop("catalog", None) or FakeCatalog("fake", "org/other:Q8_0", script=script)
            server = stack.enter_context(served(catalog, settings.pop("options", None)))
            guest = Visit(browser, server.url, **settings)
            stack.callback(guest.close)
            return server, guest

        yield enter


def test_a_message_is_answered_and_the_conversation_goes_on(visit: Enter) -> None:
    server, guest = visit()
    guest.say("hi there")
    guest.say("and then?")
    assert guest.answers.locator(".body").all_inner_texts() == ["Once upon a time."] * 2
    assert [(m["role"], m["content"]) for m in server.model.works[1].prompt] == [
        ("user", "hi there"),
        ("assistant", "Once upon a time."),
        ("user", "and then?"),
    ]
    assert "5 tokens · 20 tokens/s" in guest.answers.last.inner_text()
    assert guest.page.locator("#window").inner_text() == "13 of 512 tokens"
    assert guest.page.evaluate("document.activeElement.id") == "prompt"
    assert guest.page.locator("#live").inner_text() == "Once upon a time."


def test_enter_sends_and_shift_enter_breaks_the_line(visit: Enter) -> None:
    server, guest = visit()
    guest.prompt.type("one")
    guest.prompt.press("Shift+Enter")
    guest.prompt.type("two")
    guest.prompt.press("Enter")
    guest.settled()
    assert server.model.works[0].prompt[0]["content"] == "one\ntwo"
    guest.prompt.press("Enter")  # nothing to send
    assert len(server.model.works) == 1


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_an_answer_is_stopped_and_what_came_is_kept(visit: Enter, how: str) -> None:
    server, guest = visit(Script(piece_s=0.3))
    guest.prompt.fill("hi")
    guest.prompt.press("Enter")
    guest.answers.get_by_text("Once").wait_for()
    guest.prompt.press("Escape") if how == "Escape" else guest.page.get_by_role("button", name="Stop").click()
    guest.settled()
    assert server.model.works[0].cancelled.wait(5)
    assert "You stopped this answer." in guest.answers.inner_text()
    assert guest.answers.locator(".body").inner_text().startswith("Once")
    assert guest.page.evaluate("document.activeElement.id") == "prompt"
    guest.page.reload()
    assert guest.page.get_by_role("navigation").get_by_text("hi").count() == 1


def test_another_answer_and_an_edited_question_are_branches(visit: Enter) -> None:
    server, guest = visit()
    guest.say("first")
    guest.page.get_by_role("button", name="Another answer").click()
    guest.settled()
    assert guest.answers.count() == 1 and "2 / 2" in guest.answers.inner_text()
    guest.page.locator(".message.user").hover()
    guest.page.get_by_role("button", name="Edit").click()
    field = guest.page.get_by_role("textbox", name="Edit your message")
    assert field.input_value() == "first"
    field.press("Escape")
    assert field.count() == 0 and len(server.model.works) == 2
    guest.page.get_by_role("button", name="Edit").click()
    field.fill("second")
    field.press("Enter")
    guest.settled()
    assert [work.prompt[-1]["content"] for work in server.model.works] == ["first", "first", "second"]
    assert len(server.model.works[2].prompt) == 1
    guest.page.locator(".message.user").get_by_role("button", name="The one before").click()
    assert guest.page.locator(".message.user .body").inner_text() == "first"
    assert "2 / 2" in guest.answers.inner_text()
    assert guest.page.evaluate("document.activeElement.ariaLabel") == "The one after"


def test_settings_reach_the_model_and_stay(visit: Enter) -> None:
    server, guest = visit()
    guest.page.get_by_role("button", name="Settings").click()
    dialog = guest.page.get_by_role("dialog", name="Settings")
    assert dialog.get_by_label("Temperature").get_attribute("placeholder") == "0.8 (model’s own)"
    values = {"System prompt": "Be brief.", "Temperature": "0.25", "Top p": "0.5", "Top k": "7", "Min p": "0"}
    values |= {"Repeat penalty": "1.5", "Most tokens": "3", "Seed": "-5"}
    for name, value in values.items():
        dialog.get_by_label(name).fill(value)
    dialog.get_by_label("Seed").press("Enter")
    dialog.wait_for(state="hidden")
    guest.say("hi")
    (work,) = server.model.works
    assert [(m["role"], m["content"]) for m in work.prompt] == [("system", "Be brief."), ("user", "hi")]
    sampling = work.asked["sampling"]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.25, 0.5, 7, 0)
    assert (sampling.repeat_penalty, sampling.seed, work.asked["max_tokens"]) == (1.5, -5, 3)
    assert "as many tokens as the settings allow" in guest.answers.inner_text()
    guest.page.reload()
    guest.page.get_by_role("button", name="Settings").click()
    assert dialog.get_by_label("Top k").input_value() == "7"
    dialog.get_by_label("Top k").fill("-1")
    dialog.get_by_role("button", name="Save").click()
    assert dialog.is_visible(), "what the server would refuse is refused here"
    dialog.get_by_role("button", name="Reset").click()
    guest.say("again")
    assert server.model.works[1].asked["sampling"].temperature is None


def test_reasoning_is_folded_and_sent_back_as_reasoning(visit: Enter) -> None:
    text = "I wonder.\n</think>\n\nIt is so."
    server, guest = visit(Script(tuple(re.findall(r".{1,3}", text, re.S)), template=THINKING))
    guest.say("hi")
    assert guest.answers.locator(".body").inner_text() == "It is so."
    thought = guest.answers.get_by_text("I wonder.")
    assert not thought.is_visible()
    guest.answers.get_by_text("Reasoning", exact=True).click()
    assert thought.is_visible()
    guest.say("go on")
    assert server.model.works[1].prompt[1]["reasoning_content"] == "I wonder."


def test_a_prompt_that_is_too_long_is_said_with_its_numbers(visit: Enter) -> None:
    server, guest = visit()
    guest.say("word " * 600)
    assert "600 tokens, and the window holds 512" in guest.answers.inner_text()
    server.model.works.clear()
    guest.say("short")
    assert "too long" in guest.answers.last.inner_text()
    guest.page.get_by_role("button", name="New chat").click()
    guest.say("short")
    assert guest.answers.inner_text().count("Once upon a time.") == 1


def test_an_error_in_mid_answer_is_shown_beside_what_came(visit: Enter) -> None:
    _, guest = visit(Script(breaks=EngineCrashed("the engine process died"), breaks_after=2))
    guest.say("hi")
    assert guest.answers.locator(".body").inner_text() == "Once upon"
    assert "the engine process died" in guest.answers.locator(".wrong").inner_text()


def test_the_model_that_is_picked_answers(visit: Enter) -> None:
    server, guest = visit()
    assert "in memory" in guest.page.locator("#facts").inner_text()
    guest.page.get_by_label("Model").select_option("org/other:Q8_0")
    assert "loads at the first message" in guest.page.locator("#facts").inner_text()
    guest.say("hi")
    assert server.model.info.name == "org/other:Q8_0"
    assert guest.answers.locator(".speaker").inner_text() == "org/other:Q8_0"
    guest.page.locator("#facts", has_text="in memory").wait_for()
    guest.page.reload()
    guest.page.locator("#facts", has_text="in memory").wait_for()
    assert guest.page.get_by_label("Model").input_value() == "org/other:Q8_0"


def test_pictures_are_offered_where_the_model_sees_and_reach_it(visit: Enter) -> None:
    server, guest = visit()
    assert not guest.page.get_by_role("button", name="Attach pictures").is_visible()
    server.model.info = replace(server.model.info, projector="mmproj.gguf")
    guest.page.reload()
    file = picture("smolvlm", "fitting")
    with guest.page.expect_file_chooser() as choosing:
        guest.page.get_by_role("button", name="Attach pictures").click()
    choosing.value.set_files([file, Path(__file__)])
    guest.page.get_by_text("test_page_chat.py is no PNG, JPEG or WebP").wait_for()
    assert guest.page.get_by_role("list", name="Attached pictures").get_by_role("img", name="fitting.png").is_visible()
    guest.say("What is this?")
    parts = server.model.works[0].prompt[0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert guest.page.locator(".message.user img").evaluate("image => image.naturalWidth") > 0
    assert not guest.page.get_by_role("list", name="Attached pictures").is_visible()


def test_a_locked_server_asks_for_its_key(visit: Enter) -> None:
    server, guest = visit(options=ServeOptions(port=0, api_key=KEY))
    dialog = guest.page.get_by_role("dialog", name="This server wants an API key")
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_label("API key").press("Enter")
    guest.page.get_by_text("the API key is wrong").wait_for()
    dialog.get_by_label("API key").fill(KEY)
    dialog.get_by_label("Remember").check()
    dialog.get_by_role("button", name="Unlock").click()
    guest.say("hi")  # at once: the page sends it when it knows the models
    guest.answers.get_by_text("Once upon a time.").wait_for()
    other = guest.open()
    other.locator("#facts", has_text="in memory").wait_for()
    assert not other.get_by_role("dialog").is_visible()
    assert KEY not in json.dumps(server.model.works[0].prompt)
