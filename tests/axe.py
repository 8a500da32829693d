"""axe-core, the usual judge of accessibility, in a page of a browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cotbench.envs import wheels
from cotbench.errors import MissingDataError

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


def violations(chrome: Any, script: str) -> list[str]:
    """What it says of the page that is open."""
    chrome.execute_script(script)
    found = chrome.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then(done, error => done({violations: [], error: String(error)}))"
    )
    assert "error" not in found, found["error"]
    return [
        f"{each['id']}: {each['impact']}: {each['help']}: {[node['html'][:200] for node in each['nodes']][:3]}"
        for each in found["violations"]
    ]
