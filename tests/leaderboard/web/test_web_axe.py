"""What axe-core, the usual judge of accessibility, says of every page: nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cotbench.envs import wheels
from cotbench.errors import MissingDataError
from tests.conftest import needs_browser
from tests.leaderboard.browsing import DESK, PHONE, Board, board, opened
from tests.leaderboard.serving import needs_web

__all__ = ["board", "opened"]
pytestmark = [needs_web, *needs_browser]

AXE = wheels.Wheel(
    "axe",
    "axe-playwright-python",
    "0.1.8",
    "fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8",
    "MPL-2.0 (axe-core)",
    "axe.min.js, read as data",
)


@pytest.fixture(scope="module")
def axe() -> Iterator[str]:
    """The script, out of a wheel that is fetched like the benchmark's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(wheels.WHEELS, AXE.name, AXE)
        try:
            yield wheels.read(AXE.name, "axe_playwright_python/axe.min.js")
        except MissingDataError as error:
            pytest.skip(f"axe-core is not to be had: {error}")


PAGES = (
    "/?env=alfworld-gen&split=paper/id&mode=cot&state=all",
    "/?env=alfworld&split=paper/ood&mode=cot",
    "/?env=all",
    "/entries/{replayed}",
    "/entries/{rejected}",
    "/entries/{pending}",
    "/submit",
    "/api",
    "/?env=nothing",
)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_no_page_keeps_anybody_out(opened: Callable[..., Any], board: Board, axe: str, path: str, dark: bool) -> None:
    ids = {"replayed": "The expert", "rejected": "A second walk", "pending": "Two games"}
    for width in (DESK, PHONE):
        chrome = opened(path.format(**{state: board.entries[name] for state, name in ids.items()}), width, dark)
        chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert _violations(chrome, axe) == [], width


def test_the_form_with_an_error_keeps_nobody_out(opened: Callable[..., Any], axe: str) -> None:
    chrome = opened("/submit")
    chrome.execute_script("document.querySelector('#file').required = false")
    chrome.find_element("css selector", ".submission button").click()
    assert "no bundle was chosen" in chrome.find_element("css selector", "[role=alert]").text
    assert _violations(chrome, axe) == []


def test_axe_would_find_something(opened: Callable[..., Any], axe: str) -> None:
    chrome = opened("/")
    chrome.execute_script("document.querySelector('.chooser select').parentElement.firstChild.remove()")
    chrome.execute_script("document.querySelector('h1').style.color = '#aaa'")
    assert {"select-name", "color-contrast"} <= {name.split(":")[0] for name in _violations(chrome, axe)}


def _violations(chrome: Any, axe: str) -> list[str]:
    chrome.execute_script(axe)
    found = chrome.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then(done, error => done({violations: [], error: String(error)}))"
    )
    assert "error" not in found, found["error"]
    return [
        f"{each['id']}: {each['impact']}: {each['help']}: {[node['html'][:200] for node in each['nodes']][:3]}"
        for each in found["violations"]
    ]
