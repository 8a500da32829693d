"""Results as Python and notebooks show them."""

from __future__ import annotations

import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cotbench.api.page_display import page_display
from cotbench.errors import MissingExtraError
from cotbench.notebook import Display, data_frame
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.status import RunStatus
from cotbench.status_line import StatusLine, in_notebook
from tests.cotbench.report.pages import HOSTILE, hostile_page

_HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\n'\"&"


def test_whatever_a_display_holds_is_text() -> None:
    shown = Display(_HOSTILE, (_HOSTILE,), (_HOSTILE, "b"), ((_HOSTILE, _HOSTILE),), (_HOSTILE,))
    html = shown.html()
    tags = set(re.findall(r"<(/?\w+)", html))
    assert tags == {tag for name in ("div", "table", "thead", "tbody", "tr", "th", "td") for tag in (name, f"/{name}")} | {"br"}
    assert "\x1b" not in html and r"\x1b" in html and "&lt;img" in html
    assert not re.search(r"#[0-9a-f]{3}|color:(?!inherit)", html), "its colours are those of the page around it"
    assert "\x1b" not in shown.text() and len(shown.text().splitlines()) == 3


def test_a_page_with_hostile_texts_is_text() -> None:
    html = page_display(hostile_page()).html()
    assert not any(text in html for text in HOSTILE if "<" in text)


def test_a_table_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(data_frame([{"a": 1}, {"b": 2}]).columns) == ["a", "b"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="needs the extra 'pandas'"):
        data_frame([])


class _Cell:
    """The output of a notebook's cell, as IPython keeps it: one place, whose content is replaced."""

    def __init__(self) -> None:
        self.contents: list[dict[str, str]] = []
        self.places = 0

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> _Cell:
        assert raw and display_id
        self.places += 1
        self.update(content, raw=raw)
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        self.contents.append(content)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> _Cell:
    cell, ipython, display = _Cell(), ModuleType("IPython"), ModuleType("IPython.display")
    modules: list[Any] = [ipython, display]
    modules[0].get_ipython = lambda: SimpleNamespace(kernel=object())
    modules[1].display = cell.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return cell


def test_progress_is_one_line_that_is_replaced(cell: _Cell) -> None:
    assert in_notebook()
    status = RunStatus(StatusLine(), 3)
    row: Any = SimpleNamespace(error=None, mode="cot", success=True)
    episodes: list[EpisodeRow] = [row, SimpleNamespace(error="\x1b[31mlost", mode="cot", success=False), row]  # type: ignore[list-item]
    status.resumed(episodes[:1])
    for one in episodes[1:]:
        status.finished(one)  # type: ignore[arg-type]
    assert cell.places == 1 and len(cell.contents) == 2, "what comes too soon is left out, but for the last"
    assert cell.contents[-1]["text/plain"].startswith("3/3 episodes, CoT 2/2 won, 1 errors, ")
    StatusLine(visible=False).show("nothing", last=True)
    StatusLine().show("<b>\r\x1b[A", last=True)
    assert cell.contents[-1]["text/plain"] == r"<b> \x1b[A" and "&lt;b&gt;" in cell.contents[-1]["text/html"]


def test_outside_of_a_notebook_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    StatusLine().show("text", last=True)
    assert capfd.readouterr() == ("", "")
