"""A leaderboard in a real browser: entries of real runs, a server, Chromium."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.leaderboard.made import packed
from tests.leaderboard.serving import served

PHONE, DESK = 390, 1400


@dataclass(frozen=True)
class Board:
    """A served leaderboard.

    Attributes:
        entries: name -> id.
    """

    address: str
    store: Any
    entries: dict[str, str]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Five entries of alfworld-gen paper/id: two replayed, one rejected, two pending; and one of paper/ood."""
    from cotbench.leaderboard.store.store import Store, accept_submission
    from cotbench.leaderboard.verification.difference import Difference

    runs = {
        "The expert": packed(agent="expert", max_steps=None),
        "A walk": packed(),
        "A second walk": packed(seed=1),
        "Two games": packed(episodes=2),
        "Prompt alone": packed(mode="prompt"),
        "Out of domain": packed(split="ood"),
    }
    with Store.open(tmp_path_factory.mktemp("board") / "board.sqlite") as store:
        ids = {
            name: accept_submission(store, io.BytesIO(data), name=name, team=f"Team of {name.split()[0]}")[0].id
            for name, data in runs.items()
        }
        for name in ("The expert", "A walk"):
            store.settle(ids[name], None, with_versions={})
        difference = Difference.at("score", "1.0", "0.0", episode="alfworld/gen/pick/8000#cot", step=2)
        store.settle(ids["A second walk"], difference, with_versions={})
        with served(store) as address:
            yield Board(address, store, ids)


@pytest.fixture
def opened(chrome: Any, board: Board) -> Callable[..., Any]:
    """Opens a page: its address, width, dark or not."""

    def open_(path: str = "/", width: int = DESK, dark: bool = False) -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chrome.get(board.address + path)
        return chrome

    return open_
