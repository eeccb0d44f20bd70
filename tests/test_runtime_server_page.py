"""The chat page as files: served under its policy, nothing from elsewhere, nothing that makes HTML of a text, legible.

What it does in a browser is in ``test_page_*.py``; ``make page-test`` runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fake_model import FakeCatalog
from ingle.runtime.server.chat_page import FOLDER, POLICY, files
from ingle.runtime.server.listening import ServeOptions
from served import Served, served

SOURCES = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.iterdir())}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}
INDEX, STYLE = SOURCES["index.html"], SOURCES["style.css"]
PARTS = sorted(name for name in SOURCES if name != "index.html")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(FakeCatalog("fake"), ServeOptions(port=0, api_key="secret")) as running:
        yield running


def test_every_file_is_served_without_a_key_and_under_the_policy(server: Served) -> None:
    assert set(files()) == set(SOURCES)
    kinds = {".js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "tml": "text/html"}
    for path, name in {"/": "index.html", **{f"/page/{name}": name for name in PARTS}}.items():
        answered = server.ask("GET", path)
        assert (answered.status, answered.body) == (200, SOURCES[name].encode()), path
        assert answered.headers["content-type"].startswith(kinds[name[-3:]])
        assert answered.headers["content-security-policy"] == POLICY
        assert answered.headers["x-content-type-options"] == "nosniff"
        again = server.ask("GET", path, headers={"If-None-Match": answered.headers["etag"]})
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/page/index.html", "/page/absent.js", "/page/", "/page/..%2fapp.py", "/page/%2e%2e"])
def test_there_is_nothing_beside_the_files(server: Served, path: str) -> None:
    assert server.ask("GET", path).status == 404


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_the_page_is_not_for_pages_of_others(server: Served, headers: dict[str, str]) -> None:
    assert server.ask("GET", "/", headers=headers).status == 403


def test_the_policy_lets_it_load_nothing_else_and_run_nothing_that_is_written_in_it() -> None:
    allowed = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert allowed["default-src"] == "'none'"
    assert {name: value for name, value in allowed.items() if "'self'" in value} == {
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
    }
    assert "unsafe" not in POLICY and allowed["require-trusted-types-for"] == "'script'"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", INDEX)


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"'`)]*""", SOURCES[name]))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "a namespace is a name, nothing is loaded from it"
    for place in re.findall(r"""(?:src|href)="([^"#]+)"|from "([^"]+)"|@import""", SOURCES[name]):
        assert re.fullmatch(r"/docs|/page/[\w.]+|\./[\w.]+", "".join(place)), place
        if (file := "".join(place).rsplit("/", 1)[-1]) != "docs":
            assert file in SOURCES


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_html_or_code_of_a_text(name: str) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    assert not re.search(forbidden + r"|\beval\b|new Function|setTimeout\(\s*[\"'`]", SCRIPTS[name])


def test_every_element_that_a_script_looks_up_is_there() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', INDEX))
    asked = {name for text in SCRIPTS.values() for name in re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', text)}
    assert asked and asked <= ids
    icons = {name for text in SCRIPTS.values() for name in re.findall(r'(?:icon|button|act)\("([a-z]+)"', text)}
    assert {f"icon-{name}" for name in icons} | set(re.findall(r'href="#(icon-\w+)"', INDEX)) == {
        name for name in ids if name.startswith("icon-")
    }


def test_every_field_has_a_label() -> None:
    labelled = set(re.findall(r'<label for="([\w-]+)"', INDEX))
    for tag in re.findall(r"<(?:input|textarea|select)\b[^>]*>", INDEX):
        (name,) = re.findall(r'\bid="([\w-]+)"', tag)
        assert name in labelled or "aria-label" in tag or f'<label class="tick">{tag}' in INDEX, tag
    for tag, inner in re.findall(r"<button\b([^>]*)>(.*?)</button>", INDEX):
        assert "aria-label=" in tag or re.sub(r"<svg.*?</svg>", "", inner).strip(), tag


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


INK_ON_GROUND = [
    (ink, ground, 4.5)
    for ink, grounds in {
        "ink": ("ground", "panel", "raised", "hover", "glow", "wrong-ground"),
        "soft": ("ground", "panel", "raised", "hover"),
        "accent": ("ground", "panel", "raised"),
        "on-accent": ("accent",),
        "ground": ("wrong",),
    }.items()
    for ground in grounds
] + [("edge", "ground", 3.0), ("edge", "raised", 3.0)]


@pytest.mark.parametrize(("ink", "ground", "least"), INK_ON_GROUND)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_are_legible_in_both_themes(ink: str, ground: str, least: float, theme: int) -> None:
    colours = {
        name: pair
        for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
        if len(pair) == 2
    }
    assert contrast(colours[ink][theme], colours[ground][theme]) >= least
