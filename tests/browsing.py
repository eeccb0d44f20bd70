"""Headless Chromium on a page of our own server, for the tests that are marked ``browser``."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
SIZE = {"width": 1180, "height": 760}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser of this machine. Without one the test fails: it was asked for by its mark."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.fail("there is no Chromium here: apt install chromium (or any of: " + ", ".join(NAMES) + ")")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("the browser's remote control is not installed: pip install -e '.[page]', or make page-test")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # its own sandbox does not start as root
    with sync_playwright() as control:
        browser = control.chromium.launch(executable_path=program, args=sandbox)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page in a browser profile of its own. What it complains of, or asks of others, fails the test at the end."""

    def __init__(self, browser: Any, url: str, **settings: Any) -> None:
        self.url = url
        self.context = browser.new_context(viewport=settings.pop("viewport", SIZE), **settings)
        self.context.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.page = self.open()

    def open(self) -> Any:
        """One more tab of the same profile."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("request", self._asked)
        page.goto(self.url)
        page.locator("#model option, dialog[open]").first.wait_for(state="attached")
        return page

    @property
    def prompt(self) -> Any:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def answers(self) -> Any:
        return self.page.locator(".message.assistant")

    def say(self, text: str) -> None:
        """Send a message and wait for the end of its answer."""
        self.prompt.fill(text)
        self.prompt.press("Enter")
        self.settled()

    def settled(self) -> None:
        self.page.locator(".message[aria-busy=true]").wait_for(state="detached")
        self.page.get_by_role("button", name="Send", exact=True).wait_for()

    def close(self) -> None:
        self.context.close()
        assert not self.complaints

    def _heard(self, message: Any) -> None:
        expected = "the server responded with a status of"  # what the browser says of every refused request
        if message.type in ("error", "warning") and expected not in message.text:
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.url + "/", "data:", "blob:")):
            self.complaints.append(f"asked for {request.url}")
