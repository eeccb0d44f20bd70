"""The pictures of docs/page.md: the page with the example model, in both themes. Run by ``make page-pictures``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from browsing import Visit, chromium
from PIL import Image
from shell import ingle

DOCS = Path(__file__).parent.parent / "docs"
SIZE = {"width": 1120, "height": 700}
COLOURS = 96


def main(model: Path) -> None:
    with ingle("serve", model, "--port", "0", "--log-level", "warning") as process, chromium() as browser:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for theme in ("light", "dark"):
            guest = Visit(browser, url, viewport=SIZE, color_scheme=theme)
            show(guest)
            keep(guest.page, DOCS / f"page-{theme}.png")
            guest.close()
        process.terminate()


def show(guest: Visit) -> None:
    """A conversation at temperature 0, so that the pictures are the same each time."""
    guest.page.get_by_role("button", name="Settings").click()
    guest.page.get_by_label("Temperature").fill("0")
    guest.page.get_by_role("button", name="Save").click()
    for text in ("What is thy name?", "Wilt thou sing for us?"):
        guest.say(text)
        guest.page.get_by_role("button", name="New chat").click()
    for text in ("Good morrow, friend. What news from the court?", "Tell me of thy king."):
        guest.say(text)
    guest.page.mouse.move(0, 0)
    guest.page.locator("#latest").wait_for(state="hidden")


def keep(page: Any, path: Path) -> None:
    """A PNG of few colours: a third of the size, and no eye sees it."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
