"""The leaderboard in a real browser: sorted, filtered, read, stepped through, submitted to; with and without JavaScript."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import needs_browser
from tests.leaderboard.browsing import DESK, PHONE, Board, board, opened
from tests.leaderboard.made import packed
from tests.leaderboard.serving import needs_web

__all__ = ["board", "opened"]
pytestmark = [needs_web, *needs_browser]
ID = "/?env=alfworld-gen&split=paper/id&mode=cot"


def _names(chrome: Any) -> list[str]:
    return [each.text for each in chrome.find_elements("css selector", ".standings tbody th > a")]


def _choose(chrome: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(chrome.find_element("css selector", f".chooser select[name={name}]")).select_by_visible_text(text)


def _query(chrome: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(chrome.current_url).query).items()}


def _eventually(what: Callable[[], Any], wanted: Any) -> None:
    """A page needs a moment to come."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    until, found = time.monotonic() + 10, None
    while time.monotonic() < until:
        try:
            found = what()
        except (NoSuchElementException, StaleElementReferenceException):  # One page has gone, the next is on its way.
            time.sleep(0.02)
            continue
        if found == wanted:
            return
        time.sleep(0.02)
    assert found == wanted


@pytest.fixture
def without_javascript(chrome: Any) -> Iterator[None]:
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_click_on_a_head_sorts(opened: Callable[..., Any]) -> None:
    chrome = opened(f"{ID}&state=all")
    assert len(_names(chrome)) == 4
    chrome.find_element("link text", "Entry").click()
    assert _names(chrome) == ["A second walk", "A walk", "The expert", "Two games"]
    assert chrome.find_element("css selector", "th[aria-sort=ascending]").text.startswith("Entry")
    chrome.find_element("link text", "Entry").click()
    assert _names(chrome) == ["Two games", "The expert", "A walk", "A second walk"]
    assert _query(chrome)["state"] == "all" and chrome.find_elements("css selector", "th[aria-sort=descending]")
    chrome.find_element("link text", "Success").click()
    assert _names(chrome)[0] == "The expert"


def test_what_is_chosen_is_shown_at_once(opened: Callable[..., Any]) -> None:
    chrome = opened(ID)
    assert sorted(_names(chrome)) == ["A walk", "The expert"]
    _choose(chrome, "state", "pending")
    _eventually(lambda: _names(chrome), ["Two games"])
    _choose(chrome, "mode", "prompt")
    _eventually(lambda: sorted(_names(chrome)), ["Prompt alone", "Two games"])
    assert _query(chrome) == {"env": "alfworld-gen", "split": "paper/id", "mode": "prompt", "state": "pending"}
    _choose(chrome, "split", "paper/ood")
    _eventually(lambda: _names(chrome), ["Out of domain"])


def test_a_split_that_the_environment_has_not_is_chosen_anew(opened: Callable[..., Any]) -> None:
    chrome = opened("/?env=alfworld-gen&split=paper/ood_pair&mode=cot")
    _choose(chrome, "env", "ScienceWorld")
    _eventually(lambda: chrome.find_element("tag name", "h1").text, "ScienceWorld, paper/ood, CoT mode")
    chrome.back()
    _eventually(lambda: chrome.find_element("tag name", "h1").text, "ALFWorld (generated), paper/ood_pair, CoT mode")
    assert chrome.find_element("css selector", "select[name=split]").is_enabled()


def test_by_keys_the_button_shows_what_is_chosen(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened(ID)
    chrome.find_element("css selector", "select[name=state]").send_keys("r")
    time.sleep(0.3)
    assert "state" not in _query(chrome)
    chrome.find_element("css selector", ".chooser button").send_keys(Keys.ENTER)
    _eventually(lambda: _names(chrome), ["A second walk"])


def test_an_entry_is_stepped_through_by_keys(opened: Callable[..., Any], board: Board) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened(ID)
    chrome.find_element("link text", "The expert").click()
    assert urlsplit(chrome.current_url).path == f"/entries/{board.entries['The expert']}"
    assert chrome.find_element("tag name", "h1").text == "The expert"
    listed = chrome.find_element("css selector", ".browser-list")
    listed.send_keys("j")
    listed.send_keys(Keys.ENTER)
    pane = chrome.switch_to.active_element
    assert pane.get_attribute("aria-label") == "Episode"
    head = chrome.find_element("css selector", "h4").text
    assert head.startswith("Step 1 of ")
    pane.send_keys("j")
    assert chrome.find_element("css selector", "h4").text == head.replace("1", "2", 1)
    chrome.switch_to.active_element.send_keys("k")
    assert chrome.find_element("css selector", "h4").text == head


def test_a_rejected_entry_says_where(opened: Callable[..., Any], board: Board) -> None:
    chrome = opened(f"/entries/{board.entries['A second walk']}")
    said = chrome.find_element("css selector", ".warnings").text
    assert "In episode alfworld/gen/pick/8000#cot, step 3: score" in said and "Submitted\n1.0\nReplayed\n0.0" in said


def test_the_form_leads_to_the_new_entry(opened: Callable[..., Any], board: Board, tmp_path: Path) -> None:
    file = tmp_path / "run.zip"
    file.write_bytes(packed(seed=7))
    chrome = opened("/")
    chrome.find_element("link text", "Submit a run").click()
    chrome.find_element("id", "file").send_keys(str(file))
    chrome.find_element("id", "name").send_keys("A <name> that is refused")
    chrome.find_element("css selector", ".submission button").click()
    _eventually(lambda: "The submission was refused" in chrome.find_element("tag name", "main").text, True)
    assert chrome.find_element("id", "name").get_attribute("value") == "A <name> that is refused"
    chrome.find_element("id", "file").send_keys(str(file))
    chrome.find_element("id", "name").clear()
    chrome.find_element("id", "name").send_keys("Sent by hand")
    chrome.find_element("css selector", ".submission button").click()
    _eventually(lambda: chrome.find_element("tag name", "h1").text, "Sent by hand")
    entry = board.store.entries()[0]
    assert urlsplit(chrome.current_url).path == f"/entries/{entry.id}" and entry.details.name == "Sent by hand"
    board.store.remove(entry.id)


@pytest.mark.usefixtures("without_javascript")
def test_without_javascript_the_pages_read_and_filter(opened: Callable[..., Any], board: Board) -> None:
    chrome = opened(ID)
    assert sorted(_names(chrome)) == ["A walk", "The expert"]
    _choose(chrome, "state", "rejected")
    chrome.find_element("css selector", ".chooser button").click()
    _eventually(lambda: _names(chrome), ["A second walk"])
    chrome.find_element("link text", "Entry").click()
    assert _query(chrome)["sort"] == "name"
    chrome.get(f"{board.address}/entries/{board.entries['The expert']}")
    text = chrome.find_element("tag name", "main").text
    assert "needs JavaScript, which is off" in text and "Success by task type" in text
    assert chrome.find_element("css selector", ".types svg").is_displayed()
    assert not chrome.find_element("css selector", ".browser").is_displayed()


def test_nothing_is_said_to_the_console_and_nothing_is_fetched_from_elsewhere(opened: Callable[..., Any], board: Board) -> None:
    chrome = opened("/")
    chrome.get_log("performance")
    chrome.get_log("browser")
    for path in ("/", "/?env=alfworld&split=paper/ood", f"/entries/{board.entries['The expert']}", "/submit", "/api"):
        opened(path)
    assert chrome.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith((board.address, "data:,")) for url in asked), asked


@pytest.mark.parametrize("width", [PHONE, 320, 700, DESK])
def test_no_page_scrolls_sideways(opened: Callable[..., Any], board: Board, width: int) -> None:
    for path in (f"{ID}&state=all", "/?env=alfworld&split=paper/ood", *map("/entries/{}".format, board.entries.values())):
        chrome = opened(path, width)
        chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width, path
        beyond = chrome.execute_script(
            "return [...document.querySelectorAll('body *')].filter(each =>"
            " !each.closest('.scroll, svg, .browser-list, pre, .hidden, .skip')"
            f" && each.getBoundingClientRect().right > {width} + 1).map(each => each.outerHTML.slice(0, 80))"
        )
        assert beyond == [], path
    for path in ("/submit", "/api", "/nothing"):
        chrome = opened(path, width)
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= width, path


def test_the_table_scrolls_by_keys_on_a_phone(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened(ID, PHONE)
    region = chrome.find_element("css selector", ".standings")
    assert region.get_attribute("role") == "region" and region.get_attribute("aria-label") == "Standings"
    region.send_keys(Keys.ARROW_RIGHT)
    _eventually(lambda: chrome.execute_script("return arguments[0].scrollLeft > 0", region), True)


def test_the_skip_link_comes_first(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened("/")
    chrome.find_element("tag name", "body").send_keys(Keys.TAB)
    link = chrome.switch_to.active_element
    assert link.text == "Skip to the content" and link.location["x"] >= 0
    link.send_keys(Keys.ENTER)
    assert chrome.execute_script("return document.activeElement.id") == "content"
