"""The page in a real browser: nothing breaks, nothing is fetched; it works by keys, on a phone, in the dark, on paper."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from cotbench.printable import printable
from cotbench.report.browser import effect_of
from cotbench.report.html import write_report
from cotbench.report.page import BrowsedRun, Card, Section, Table
from cotbench.runs.episode import Episode
from tests.axe import axe, violations
from tests.conftest import needs_browser
from tests.cotbench.report.pages import HOSTILE, episode, estimate, hostile_page, needs_report, step

__all__ = ["axe"]

pytestmark = [needs_report, *needs_browser]
PHONE, DESK = 375, 1280


def _episodes() -> list[Episode]:
    """300 tasks in both modes: of each ten one helped, one hurt, one otherwise revised; every third won."""
    found = []
    for number in range(300):
        prompt, expert = {0: ("go to bed 1", "take mug 1"), 1: ("go to bed 1",) * 2, 2: ("look", "wait")}.get(
            number % 10, ("take mug 1",) * 2
        )
        steps = [
            step("open door", "open door", trace=f"thought {number} <b>bold</b>", observation="It is open."),
            step("take mug 1", prompt, expert, trace=HOSTILE[0], observation=f"You see mug {number}."),
            step("wait", "wait", observation="Time passes.", invalid_action="nothing to wait for" if number == 0 else None),
        ]
        kind = ("look", "pick", "heat")[number % 3]
        found.append(episode(f"task/{number}", "prompt", steps=[step("wait")], task_type=kind))
        found.append(episode(f"task/{number}", "cot", number % 3 == 0, steps, task_type=kind, goal=f"find mug {number}"))
    return found


EPISODES = _episodes()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = hostile_page()
    page = replace(page, runs=(*page.runs, BrowsedRun("many", tuple(EPISODES))))
    return write_report(page, tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture
def opened(chrome: Any, address: str) -> Callable[..., Any]:
    """Opens the page anew: width, dark or not, what stands after #."""

    def open_(width: int = DESK, dark: bool = False, at: str = "", run: str = "many", media: str = "") -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get("about:blank")
        chrome.get(address + at)
        if run and not at:
            _choose(chrome, "run", f"{run} (600)")
        return chrome

    return open_


def _choose(chrome: Any, name: str, text: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(chrome.find_element("css selector", f"select[name={name}]")).select_by_visible_text(text)


def _await_text(chrome: Any, selector: str, text: str) -> None:
    """Wait until the first element reads so: the page follows a key when it comes to it."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chrome, 10).until(lambda chrome: _text(chrome, selector) == text, f"{selector} reads {text!r}")


def _text(chrome: Any, selector: str) -> str:
    return str(chrome.find_element("css selector", selector).text)


def _eventually(what: Callable[[], Any], wanted: Any) -> None:
    """The page needs a moment after a key: searches and addresses wait until typing ends."""
    until = time.monotonic() + 5
    while (found := what()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    assert found == wanted


def _passing(check: Callable[[Episode], bool]) -> str:
    return f"{sum(map(check, EPISODES))} of 600 episodes here"


def test_nothing_is_said_to_the_console_and_nothing_is_fetched(opened: Callable[..., Any], address: str) -> None:
    chrome = opened()
    chrome.get_log("performance")
    chrome.get_log("browser")
    chrome = opened()
    _choose(chrome, "mode", "CoT")
    pane = chrome.find_element("css selector", ".browser-episode")
    for key in "jjknp":
        pane.send_keys(key)
    time.sleep(0.3)
    assert chrome.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert {url.partition("#")[0] for url in asked} <= {address, "about:blank", "data:,"}, asked
    assert chrome.title == HOSTILE[0]
    assert not chrome.find_elements("css selector", "img")


def test_hostile_episodes_are_shown_as_they_are_written(opened: Callable[..., Any]) -> None:
    chrome = opened(run="")
    assert _text(chrome, ".browser-episode h3") == HOSTILE[0]
    shown = [each.get_attribute("textContent") for each in chrome.find_elements("css selector", ".browser-episode pre")]
    written = ["You are in a room.", "".join(HOSTILE[:3]), HOSTILE[1], HOSTILE[0], HOSTILE[0], HOSTILE[0]]
    assert shown == [printable(text) for text in written]
    assert "The trace changed the action to the expert's: it helped." in _text(chrome, ".browser-effect")
    assert HOSTILE[1] in _text(chrome, ".browser-invalid")


def test_a_traceback_is_shown_as_it_is_written(opened: Callable[..., Any]) -> None:
    chrome = opened(run="")
    _choose(chrome, "outcome", "error")
    line = chrome.find_element("css selector", ".browser-invalid")
    assert line.get_attribute("textContent") == f"agent bug: {printable(HOSTILE[2])}"
    details = chrome.find_element("css selector", ".browser-episode details")
    assert details.get_attribute("open") is None
    assert details.find_element("css selector", "pre").get_attribute("textContent") == printable("\n".join(HOSTILE[:3]))
    assert chrome.title == HOSTILE[0] and not chrome.find_elements("css selector", "img")


def test_filters(opened: Callable[..., Any]) -> None:
    chrome = opened()

    def count() -> str:
        return _text(chrome, ".browser-count")

    def has(*effects: str) -> Callable[[Episode], bool]:
        return lambda one: any(effect_of(each) in effects for each in one.trajectory)

    assert count() == "600 of 600 episodes here"
    for revisions, check in (
        ("revisions that helped", has("helped")),
        ("revisions that hurt", has("hurt")),
        ("any revision", has("helped", "hurt", "revised")),
    ):
        _choose(chrome, "revisions", revisions)
        assert count() == _passing(check) and not count().startswith(("0", "600"))
    _choose(chrome, "revisions", "with or without")
    _choose(chrome, "mode", "CoT")
    _choose(chrome, "outcome", "not won")
    _choose(chrome, "type", "pick")
    assert count() == _passing(lambda one: one.mode == "cot" and not one.success and one.task_type == "pick") != _passing(has())
    search = chrome.find_element("css selector", "input[name=text]")
    search.send_keys("THOUGHT 13")
    wanted = sum(
        one.mode == "cot" and one.task_type == "pick" and "thought 13" in str(one.trajectory[0].decision.trace)
        for one in EPISODES
    )
    assert wanted == 5
    _eventually(count, "5 of 600 episodes here")
    search.send_keys(" nowhere")
    _eventually(count, "0 of 600 episodes here")
    assert _text(chrome, ".browser-episode") == "No episode passes these filters."


def test_only_what_can_be_seen_of_the_list_is_there(opened: Callable[..., Any]) -> None:
    chrome = opened()
    rows = "return [...document.querySelectorAll('.browser-row')].map(row => Number(row.getAttribute('aria-posinset')))"
    assert chrome.execute_script(rows)[0] == 1 and len(chrome.execute_script(rows)) < 40
    chrome.execute_script("document.querySelector('.browser-list').scrollTop = 1e6")
    _eventually(lambda: chrome.execute_script(rows)[-1], 600)
    assert len(chrome.execute_script(rows)) < 40
    took = chrome.execute_script(
        "const list = document.querySelector('.browser-list'), start = performance.now();"
        "for (let i = 0; i < 100; i++) list.dispatchEvent(new KeyboardEvent('keydown', {key: 'j'}));"
        "return performance.now() - start"
    )
    assert took < 5000
    assert _text(chrome, ".browser-episode h3") == "task/50"


def test_keys_go_through_episodes_and_steps(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened()
    _choose(chrome, "mode", "CoT")
    chrome.find_element("css selector", "input[name=text]").send_keys(Keys.TAB)
    listed = chrome.switch_to.active_element
    assert listed.get_attribute("role") == "listbox"
    listed.send_keys("j")
    listed.send_keys(Keys.ARROW_DOWN)
    listed.send_keys("k")
    assert _text(chrome, ".browser-episode h3") == "task/1"
    selected = chrome.find_element("id", listed.get_attribute("aria-activedescendant"))
    assert selected.get_attribute("aria-selected") == "true" and "task/1" in selected.text
    listed.send_keys(Keys.HOME)
    listed.send_keys(Keys.ENTER)
    pane = chrome.switch_to.active_element
    assert pane.get_attribute("aria-label") == "Episode" and _text(chrome, "h4") == "Step 1 of 3"
    for key, place in (("j", 2), (Keys.ARROW_RIGHT, 3), ("j", 3), ("k", 2), (Keys.ARROW_LEFT, 1), ("n", 2), ("n", 2)):
        chrome.switch_to.active_element.send_keys(key)
        _await_text(chrome, "h4", f"Step {place} of 3")
    chrome.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert chrome.switch_to.active_element == listed
    outline = chrome.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_a_button_keeps_the_focus_while_it_steps(opened: Callable[..., Any]) -> None:
    from selenium.webdriver.common.keys import Keys

    chrome = opened()
    _choose(chrome, "mode", "CoT")
    chrome.find_element("css selector", "[data-key=next]").send_keys(Keys.ENTER)
    _await_text(chrome, "h4", "Step 2 of 3")
    assert chrome.switch_to.active_element.text == "next ›"
    chrome.switch_to.active_element.send_keys(Keys.ENTER)
    _await_text(chrome, "h4", "Step 3 of 3")
    assert _text(chrome, ".browser-invalid") == "The action did nothing: nothing to wait for"
    chrome.find_element("css selector", "[data-key=other]").send_keys(Keys.ENTER)
    _await_text(chrome, ".browser-facts b", "prompt mode")
    assert _text(chrome, ".browser-episode h3") == "task/0"


def test_where_the_actions_differ_is_marked(opened: Callable[..., Any]) -> None:
    chrome = opened(at=f"#{urlencode({'run': 'many', 'task': 'task/0', 'mode': 'cot', 'step': 1})}")
    marked = [
        [each.text for each in chrome.find_elements("css selector", f".action-{mode} mark")] for mode in ("prompt", "cot")
    ]
    assert marked == [["go", "to", "bed"], ["take", "mug"]]
    assert [each.text for each in chrome.find_elements("css selector", ".browser-action h5")] == [
        "Prompt action",
        "CoT action, executed",
        "Expert action",
    ]
    colours = [
        chrome.execute_script("return getComputedStyle(arguments[0]).borderTopColor", each)
        for each in chrome.find_elements("css selector", ".browser-action pre")
    ]
    assert len(set(colours)) == 3


def test_a_step_has_an_address(opened: Callable[..., Any]) -> None:
    chrome = opened(at=f"#{urlencode({'run': 'many', 'task': 'task/123', 'mode': 'cot', 'step': 1})}")
    assert _text(chrome, ".browser-episode h3") == "task/123" and _text(chrome, "h4") == "Step 2 of 3"
    chrome.find_element("css selector", ".browser-episode").send_keys("j")

    def address() -> dict[str, list[str]]:
        return parse_qs(chrome.current_url.partition("#")[2])

    _eventually(address, {"run": ["many"], "task": ["task/123"], "mode": ["cot"], "step": ["2"]})
    assert chrome.find_element("css selector", "[data-key=link]").get_attribute("href") == chrome.current_url
    entries = chrome.execute_script("return history.length")
    chrome.find_element("css selector", ".browser-episode").send_keys("k")
    _eventually(lambda: address()["step"], ["1"])
    assert chrome.execute_script("return history.length") == entries
    chrome.execute_script("location.hash = 'run=many&task=task%2F7&mode=prompt&step=0'")
    _eventually(lambda: _text(chrome, ".browser-episode h3"), "task/7")
    chrome.execute_script("location.hash = 'run=many&task=task%2F9999&mode=cot&step=0'")
    _eventually(lambda: "not in this page" in _text(chrome, ".browser-count"), True)
    chrome = opened(at="#episodes")
    assert _text(chrome, ".browser-episode h3") == HOSTILE[0]


@pytest.mark.parametrize("width", [PHONE, 320, 700, DESK])
def test_the_page_never_scrolls_sideways(opened: Callable[..., Any], width: int) -> None:
    chrome = opened(width)
    chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = chrome.execute_script(
        "return [...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll, svg, .browser-list, pre')"
        f" && each.getBoundingClientRect().right > {width} + 1).map(each => each.outerHTML.slice(0, 80))"
    )
    assert beyond == []


def _contrast(one: str, two: str) -> float:
    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(part * weight for part, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    dim, bright = sorted((light(one), light(two)))
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(opened: Callable[..., Any], dark: bool) -> None:
    chrome = opened(dark=dark)
    paper = chrome.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (_contrast(paper, "rgb(0, 0, 0)") < 2) == dark
    fills = chrome.execute_script(
        "return [...new Set([...document.querySelectorAll('.panels text')].map(each => getComputedStyle(each).fill))]"
    )
    colours = chrome.execute_script(
        "return [...new Set([...document.querySelectorAll('main *:not(svg *)')].filter(each => each.checkVisibility()"
        " && !each.disabled && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))"
        ".map(each => getComputedStyle(each).color))]"
    )
    assert fills and len(colours) >= 5
    for colour in (*fills, *colours):
        assert _contrast(colour, paper) >= 4.5, colour
    lines = chrome.execute_script(
        "return [...document.querySelectorAll('.panels path, .panels use')].map(each => getComputedStyle(each).stroke)"
    )
    palette = {
        chrome.execute_script(f"return getComputedStyle(document.body).getPropertyValue('--{name}')")
        for name in ("prompt", "cot")
    }
    drawn = {"#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", line)[:3]) for line in lines if line != "none"}
    assert palette <= drawn


def test_without_javascript_all_but_the_browser_is_there(chrome: Any, opened: Callable[..., Any], address: str) -> None:
    chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chrome.get("about:blank")
        chrome.get(address)
        said = chrome.find_element("css selector", ".episodes").text
        assert "needs JavaScript, which is off" in said
        assert not chrome.find_element("css selector", ".browser").is_displayed()
        assert chrome.find_element("css selector", ".tabled table").is_displayed()
        assert chrome.find_element("css selector", ".panels svg").is_displayed()
    finally:
        chrome.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_paper_shows_the_figures_and_no_controls(opened: Callable[..., Any]) -> None:
    chrome = opened(dark=True, media="print", run="")
    assert not chrome.find_element("css selector", ".browser").is_displayed()
    assert chrome.find_element("css selector", ".panels svg").is_displayed()
    assert (
        _contrast(chrome.execute_script("return getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)") < 1.1
    )
    whole = chrome.execute_script(
        "return [...document.querySelectorAll('figure')].every(each => getComputedStyle(each).breakInside === 'avoid')"
    )
    assert whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all that a study's report has: claims, cards, notes, grouped rows, folded columns."""
    page = hostile_page()
    names = [f"share {number}" for number in range(20)]
    rows = tuple((arm, split, *[estimate(0.5)] * 20) for split in ("id", "ood") for arm in ("sft", "sft+"))
    wide = Table("wide", "Wide", "A caption.", ("arm", "split", *names), rows)
    claims = Table(
        "claims", "Claim by claim", "", ("claim", "verdict"), (("it rises", "cannot tell"),), bold=frozenset(("verdict",))
    )
    cards = tuple(Card(f"Number {one}", estimate(-0.2, 24), "a share", signed=True) for one in range(3))
    page = replace(page, claims=claims, verdict="A verdict.", cards=cards, notes=("How.",))
    page = replace(page, sections=(page.sections[0], Section("Wide", "Text.", (wide,))))
    return write_report(page, tmp_path_factory.mktemp("whole")).as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_has_nothing_to_say_of_a_report(chrome: Any, whole: str, axe: str, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
    for width in (DESK, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(whole)
        wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert chrome.execute_script(wider) == 0, width
        chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert violations(chrome, axe) == [], width
    texts = "[...document.querySelectorAll('.panels svg text')].map(each => each.getBoundingClientRect().height)"
    assert min(chrome.execute_script(f"return {texts}.filter(each => each > 0)")) >= 12
