"""The page in a real browser: it begins at a revision, follows a run, fits a phone, and axe-core has nothing to say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.file_lock import file_lock
from cotbench.runs import runner
from cotbench.runs.episode import EPISODES
from cotbench.runs.folder import LOCK
from cotbench.runs.manifest import MANIFEST, RunConfig
from tests.axe import axe, violations
from tests.conftest import needs_browser
from tests.cotbench.report.pages import Slips
from tests.cotbench.view.serving import needs_view, served

__all__ = ["axe"]
pytestmark = [needs_view, *needs_browser]


def _until(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.1)
    return found


def test_a_run_is_read_and_followed(chrome: Any, axe: str, tmp_path: Path) -> None:
    whole, growing = tmp_path / "whole", tmp_path / "growing"
    runner.run(RunConfig(agent="slips", episodes=6, max_steps=6), out=whole, agent=Slips())
    growing.mkdir()
    (growing / MANIFEST).write_bytes((whole / MANIFEST).read_bytes())
    lines = (whole / EPISODES).read_bytes().splitlines(keepends=True)
    (growing / EPISODES).write_bytes(b"".join(lines[:5]))

    def text(selector: str) -> str:
        """In one go: what is there may be replaced at any moment."""
        return str(chrome.execute_script("return (document.querySelector(arguments[0]) || {}).innerText || ''", selector))

    with served(tmp_path) as view, file_lock(growing / LOCK):
        for path in ("/", "/run?folder=growing", "/compare?run=growing&run=whole", "/run?folder=none"):
            for width, scheme in ((1280, "light"), (400, "dark")):
                media = [{"name": "prefers-color-scheme", "value": scheme}]
                chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
                chrome.get(view.address + path)
                assert chrome.execute_script("return document.documentElement.scrollWidth") <= width, (path, width)
                chrome.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true; })")
                assert violations(chrome, axe) == [], (path, width)
        chrome.get_log("browser")
        chrome.get(f"{view.address}/run?folder=growing")
        assert "CoT mode" in text(".browser-facts") and "The trace changed the action" in text(".browser-effect")
        assert "running 5 of 12 episodes" in text(".how-far")
        chosen = text(".browser-episode h3")
        with (growing / EPISODES).open("ab") as file:
            file.write(b"".join(lines[5:7]))
        _until(lambda: "7 of 12 episodes" in text(".how-far"))
        assert text(".browser-episode h3") == chosen, "whoever reads keeps the place"
        _until(lambda: text("#more") == "2 more episodes have ended: load them")
        chrome.find_element("css selector", "#more button").click()
        _until(lambda: "7 of 7 episodes here" in text(".browser-count"))
        # The list: what is ticked stays so while it is drawn anew.
        chrome.get(view.address)
        chrome.execute_script("document.querySelectorAll('input[type=checkbox]').forEach(box => box.click())")
        with (growing / EPISODES).open("ab") as file:
            file.write(lines[7])
        _until(lambda: "8/12" in text("#live"))
        assert len(chrome.find_elements("css selector", "input:checked")) == 2
        chrome.find_element("css selector", ".below button").click()
        _until(lambda: text("h1") == "Two runs compared")
        assert [entry for entry in chrome.get_log("browser") if "favicon" not in entry["message"]] == []


@pytest.mark.slow
def test_the_address_of_a_step_leads_there(chrome: Any, tmp_path: Path) -> None:
    runner.run(RunConfig(agent="slips", episodes=2, max_steps=4), out=tmp_path / "r", agent=Slips())
    with served(tmp_path) as view:
        from cotbench.runs.episode import read_episodes
        from cotbench.view.pages import step_address

        last = read_episodes(tmp_path / "r")[-1]
        chrome.get(view.address + step_address("r", last.task, last.mode))
        assert chrome.find_element("css selector", ".browser-episode h3").text == last.task
        assert ("CoT" if last.mode == "cot" else "Prompt").lower() in chrome.find_element(
            "css selector", ".browser-facts"
        ).text.lower()
