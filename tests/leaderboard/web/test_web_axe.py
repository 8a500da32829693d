"""What axe-core, the usual judge of accessibility, says of every page: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.axe import axe, violations
from tests.conftest import needs_browser
from tests.leaderboard.browsing import DESK, PHONE, Board, board, opened
from tests.leaderboard.serving import needs_web

__all__ = ["axe", "board", "opened"]
pytestmark = [needs_web, *needs_browser]

PAGES = (
    "/",
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
    for width in (DESK,) if dark else (DESK, PHONE):  # Dark is other colours in the same place.
        chrome = opened(path.format(**{state: board.entries[name] for state, name in ids.items()}), width, dark)
        chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert violations(chrome, axe) == [], width


def test_the_form_with_an_error_keeps_nobody_out(opened: Callable[..., Any], axe: str) -> None:
    chrome = opened("/submit")
    chrome.execute_script("document.querySelector('#file').required = false")
    chrome.find_element("css selector", ".submission button").click()
    assert "no bundle was chosen" in chrome.find_element("css selector", "[role=alert]").text
    assert violations(chrome, axe) == []


def test_axe_would_find_something(opened: Callable[..., Any], axe: str) -> None:
    chrome = opened("/")
    chrome.execute_script("document.querySelector('.chooser select').parentElement.firstChild.remove()")
    chrome.execute_script("document.querySelector('h1').style.color = '#aaa'")
    assert {"select-name", "color-contrast"} <= {name.split(":")[0] for name in violations(chrome, axe)}
