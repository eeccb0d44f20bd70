"""The chat page in headless Chromium: conversations that are kept, Markdown, themes, keyboard. ``make page-test``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Visit, chromium
from fake_model import FakeCatalog, Script
from served import Served, served

pytestmark = pytest.mark.browser

HOSTILE = """<img src=x onerror="alert(1)"><script>alert(2)</script> [a](javascript:alert(3)) <javascript:alert(4)>
![p](https://elsewhere.example/p.png) [b](data:text/html,x) **<b>bold</b>** https://example.com/x?a=1&b=<i>
"""
RENDERED = [
    ("a *b* **c** ~~d~~ `e*f*`", "<p>a <em>b</em> <strong>c</strong> <del>d</del> <code>e*f*</code></p>"),
    ("***a***", "<p><em><strong>a</strong></em></p>"),
    ("snake_case_name and 2 * 3 * 4 and **open", "<p>snake_case_name and 2 * 3 * 4 and **open</p>"),
    ("one\ntwo\\*\n\nthree", "<p>one<br>two*</p><p>three</p>"),
    ("# A\n## B #\n####### no", "<h3>A</h3><h4>B</h4><p>####### no</p>"),
    ("- a\n- b\n  - c\n\n    d\n- e", "<ul><li>a</li><li>b<ul><li><p>c</p><p>d</p></li></ul></li><li>e</li></ul>"),
    ("3. a\n4. b\n\ntext", '<ol start="3"><li>a</li><li>b</li></ol><p>text</p>'),
    ("- [x] done\n- [ ] open", "<ul><li>☑ done</li><li>☐ open</li></ul>"),
    ("> a\n> > b\n\n---", "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><hr>"),
    ("``` `a` ``", "<p>``` <code>a</code> ``</p>"),
    ("1 < 2 && <b>x</b>", "<p>1 &lt; 2 &amp;&amp; &lt;b&gt;x&lt;/b&gt;</p>"),
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake", script=Script(pieces=("Once", " upon", " a", " time.")))) as running:
        yield running


@pytest.fixture
def guest(browser: Any, server: Served) -> Iterator[Visit]:
    visit = Visit(browser, server.url)
    yield visit
    visit.close()


def rendered(guest: Visit, text: str) -> str:
    return guest.page.evaluate(
        """async text => {
            const { blocks, element } = await import("/page/markdown.js");
            return blocks(text).map((block) => element(block).outerHTML).join("");
        }""",
        text,
    )


def test_markdown(guest: Visit) -> None:
    assert [rendered(guest, text) for text, _ in RENDERED] == [html for _, html in RENDERED]
    code = rendered(guest, "```python title\nif a < b:\n    `x`\n```\nafter")
    assert "<span>python</span>" in code and "if a &lt; b:\n    `x`</code>" in code and code.endswith("<p>after</p>")
    table = rendered(guest, "| a | b |\n|---|--:|\n| 1 \\| `|` | 2 |\n| 3 |")
    assert '<th scope="col" class="right">b</th>' in table and "<td>1 | <code>|</code></td>" in table
    assert table.count("<td") == 4


def test_markdown_in_pieces_is_markdown(guest: Visit) -> None:
    """A message that grows is at each of its lengths what it would be if it had come at once."""
    text = (
        "\n\n".join(text for text, _ in RENDERED) + "\n\n```js\nx\n\ny\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nend"
    )
    same = guest.page.evaluate(
        """async text => {
            const { blocks, element, Shown } = await import("/page/markdown.js");
            const parent = document.createElement("div");
            const shown = new Shown(parent);
            for (let end = 0; end <= text.length; end += 1) {
                shown.set(text.slice(0, end));
                const whole = blocks(text.slice(0, end)).map((block) => element(block).outerHTML).join("");
                if (parent.innerHTML !== whole) return end;
            }
            return "same";
        }""",
        text,
    )
    assert same == "same"


def test_markdown_of_hostile_length_is_read_in_time(guest: Visit) -> None:
    texts = [piece * 20_000 for piece in ("*a ", "_", "`", "[", "[a](", "**a_", "> ", "- ", "<", "|", "`a``", "~~a *")]
    spent = guest.page.evaluate(
        """async texts => {
            const { blocks, element } = await import("/page/markdown.js");
            return texts.map((text) => {
                const begun = performance.now();
                blocks(text).map(element);
                return performance.now() - begun;
            });
        }""",
        texts,
    )
    assert max(spent) < 2000, dict(zip((text[:6] for text in texts), spent, strict=True))


def test_what_a_model_writes_is_text(browser: Any) -> None:
    with served(FakeCatalog("fake", script=Script(pieces=tuple(HOSTILE)))) as server:
        guest = Visit(browser, server.url)
        dialogs: list[str] = []
        guest.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        guest.say(HOSTILE)
        body = guest.answers.locator(".body")
        assert body.locator("script, img, iframe, [onerror], b, i").count() == 0
        links = body.locator("a").evaluate_all("links => links.map(link => [link.href, link.rel])")
        assert [href for href, _ in links] == ["https://elsewhere.example/p.png", "https://example.com/x?a=1&b="]
        assert all("noopener" in rel for _, rel in links)
        assert '<img src=x onerror="alert(1)">' in body.inner_text()
        assert guest.page.locator(".message.user .body").inner_text() == HOSTILE.strip()
        assert not dialogs
        guest.close()


def test_the_browser_itself_refuses_html(guest: Visit) -> None:
    refused = guest.page.evaluate(
        """() => {
            try { document.createElement("div").innerHTML = "<b>x</b>"; } catch (error) { return error.name; }
            return "made";
        }"""
    )
    assert refused == "TypeError"
    guest.complaints[:] = [text for text in guest.complaints if "TrustedHTML" not in text]


def test_conversations_are_kept_found_renamed_and_deleted(guest: Visit) -> None:
    shelf = guest.page.get_by_role("navigation", name="Earlier conversations")
    for text in ("the first", "the second"):
        guest.page.get_by_role("button", name="New chat").click()
        guest.say(text)
    guest.page.reload()
    assert shelf.locator(".title").all_inner_texts() == ["the second", "the first"]
    shelf.get_by_text("the first").click()
    assert guest.page.locator(".message.user .body").inner_text() == "the first"
    assert guest.answers.locator(".body").inner_text() == "Once upon a time."
    shelf.get_by_role("button", name="Rename: the first").click()
    guest.page.get_by_role("textbox", name="Title").fill("another name")
    guest.page.keyboard.press("Enter")
    assert sorted(shelf.locator(".title").all_inner_texts()) == ["another name", "the second"]
    shelf.get_by_text("another name").hover()
    shelf.get_by_role("button", name="Delete: another name").click()
    sure = guest.page.get_by_role("dialog", name="Delete “another name”?")
    assert guest.page.evaluate("document.activeElement.textContent") == "Keep"
    sure.get_by_role("button", name="Delete").click()
    shelf.get_by_text("another name").wait_for(state="detached")
    assert shelf.locator(".title").all_inner_texts() == ["the second"]
    guest.page.get_by_text("What shall we talk about?").wait_for()
    other = guest.open()
    guest.say("a third")
    other.get_by_role("navigation").get_by_text("a third").wait_for()  # told to the other tab


def test_conversations_go_out_and_come_back(guest: Visit, tmp_path: Path) -> None:
    guest.say("keep this")
    with guest.page.expect_download() as going:
        guest.page.get_by_role("button", name="Export all").click()
    file = tmp_path / "all.json"
    going.value.save_as(file)
    guest.page.get_by_text("keep this").first.hover()
    with guest.page.expect_download() as going:
        guest.page.get_by_role("button", name="Export as Markdown: keep this").click()
    assert going.value.suggested_filename == "keep this.md"
    assert "## fake\n\nOnce upon a time.\n" in Path(going.value.path()).read_text("utf-8")
    guest.page.get_by_role("button", name="Delete all").click()
    guest.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    guest.page.locator("#import-file").set_input_files(file)
    guest.page.get_by_role("navigation").get_by_text("keep this").click()
    assert guest.answers.locator(".body").inner_text() == "Once upon a time."
    broken = json.loads(file.read_text("utf-8"))
    (messages,) = (one["messages"] for one in broken["conversations"])
    first, second = messages
    messages[first]["parent"] = second
    file.write_text(json.dumps(broken), "utf-8")
    guest.page.locator("#import-file").set_input_files(file)
    guest.page.get_by_text("Conversation 1 of this file is damaged").wait_for()
    file.write_text("{}", "utf-8")
    guest.page.locator("#import-file").set_input_files(file)
    guest.page.get_by_text("This is no export of ingle.").wait_for()


def test_a_full_browser_says_so_and_the_answer_still_comes(guest: Visit) -> None:
    guest.page.evaluate(
        """() => {
            for (let size = 1 << 22; size; size >>= 1) {
                try { for (let n = 0; ; n += 1) localStorage.setItem(`x${size}-${n}`, "x".repeat(size)); } catch {}
            }
        }"""
    )
    guest.say("hi")
    assert guest.answers.locator(".body").inner_text() == "Once upon a time."
    assert "no room left" in guest.page.get_by_role("alert").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(browser: Any, server: Served, scheme: str) -> None:
    guest = Visit(browser, server.url, color_scheme=scheme)
    colour = "getComputedStyle(document.body).backgroundColor"
    grounds = {"light": "rgb(251, 250, 247)", "dark": "rgb(23, 21, 19)"}
    assert guest.page.evaluate(colour) == grounds[scheme]
    toggle = guest.page.locator("#theme")
    for chosen in ("light", "dark"):
        toggle.click()
        assert toggle.get_attribute("aria-label") == f"Theme: {chosen}"
        assert guest.page.evaluate(colour) == grounds[chosen]
    guest.page.reload()
    assert guest.page.evaluate(colour) == grounds["dark"]
    toggle.click()
    assert guest.page.evaluate(colour) == grounds[scheme]
    guest.close()


def test_everything_is_reached_by_keyboard_in_a_sensible_order(guest: Visit) -> None:
    guest.page.locator(".skip").focus()
    order = ["skip"]
    for _ in range(8):
        guest.page.keyboard.press("Tab")
        order.append(guest.page.evaluate("document.activeElement.id || document.activeElement.className"))
    expected = ["skip", "new-chat", "import", "toggle-shelf", "model", "open-settings", "theme", "prompt", "send"]
    assert order == expected
    guest.page.locator(".skip").focus()
    guest.page.keyboard.press("Enter")
    assert guest.page.evaluate("document.activeElement.id") == "prompt"


def test_a_narrow_window_has_its_shelf_behind_a_button(browser: Any, server: Served) -> None:
    guest = Visit(browser, server.url, viewport={"width": 390, "height": 700})
    shelf, toggle = guest.page.locator("#shelf"), guest.page.locator("#toggle-shelf")
    assert not shelf.is_visible() and toggle.get_attribute("aria-expanded") == "false"
    guest.say("hi")
    toggle.click()
    assert shelf.is_visible()
    guest.page.get_by_role("navigation").get_by_role("button", name="hi", exact=True).click()
    assert not shelf.is_visible()
    assert guest.page.evaluate("document.documentElement.scrollWidth") == 390
    guest.close()
