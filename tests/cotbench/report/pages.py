"""Pages for the tests: one full of hostile text, episodes by hand, and a player whose two actions often differ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import Any

import pytest

import cotbench
from cotbench.prompting.elicitation import Mode
from cotbench.prompting.query import Decision, Query
from cotbench.report.page import BrowsedRun, Figure, Line, Page, Panel, Section, Table
from cotbench.runs.episode import Episode, Step
from cotbench.stats.estimates import Estimate

needs_report = pytest.mark.skipif(
    find_spec("matplotlib") is None or find_spec("jinja2") is None,
    reason="what draws a report is not installed: pip install -e '.[report]'",
)
HOSTILE = (
    "</script><script>document.title = 'broken'</script>",
    "<img src=x onerror=\"document.title = 'broken'\">",
    "]]><!-- & &amp; ' \" $x^2$ \u2028 </textarea></title>",
    "=1+1",
    "@SUM(A1)",
)


class Slips:
    """The expert with slips, fewer when it reasons; so that revisions help and hurt."""

    name = "slips"
    needs = frozenset({"expert_action", "admissible_actions"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._act(query) for query in queries]

    def _act(self, query: Query) -> Decision:
        drawn = random.Random(f"{query.task} {query.step} {query.mode}")
        choices = list(query.admissible_actions or ("look",))
        slips = drawn.random() < (0.4 if query.mode == "prompt" else 0.15)
        action = drawn.choice(choices) if slips or query.expert_action is None else query.expert_action
        return Decision(action, None if query.mode == "prompt" else f"{HOSTILE[1]} so I {action}.", trace_tokens=7)

    def close(self) -> None: ...


cotbench.register_agent("slips")(Slips)


def step(action: str, prompt: str | None = None, expert: str | None = None, trace: str | None = None, **more: Any) -> Step:
    return Step(
        action=action,
        decision=Decision(action, trace),
        prompt_action=prompt,
        expert_action=expert,
        observation=more.pop("observation", "You see nothing."),
        score=0.0,
        **more,
    )


def episode(task: str, mode: Mode = "cot", success: bool = False, steps: Sequence[Step] = (), **more: Any) -> Episode:
    return Episode(
        task=task,
        task_type=more.pop("task_type", "look"),
        mode=mode,
        success=success,
        score=float(success),
        steps=len(steps),
        trajectory=tuple(steps),
        first_observation="You are in a room.",
        **more,
    )


def estimate(mean: float, n: int = 7) -> Estimate:
    return Estimate(n=n, mean=mean, low=mean - 0.113, high=mean + 0.127)


def hostile_page() -> Page:
    """Every text on it is one of `HOSTILE`."""
    a, b, c, formula, other = HOSTILE
    steps = [step(a, b, a, f"{a}{b}{c}", invalid_action=b, observation=a), step(c, c, None, c)]
    lines = (
        Line(a, (0.0, 1.0), (estimate(0.31), estimate(0.42)), "prompt", ((0.3, 0.32), (0.4,))),
        Line(b, (0.0, 1.0), (estimate(0.53), Estimate(n=1, mean=0.64, low=None, high=None)), "cot"),
        Line(c, (0.0,), (Estimate(n=0, mean=None, low=None, high=None),)),
    )
    figures = (
        Figure("curves", a, b, c, b, (Panel(a, lines, at=0.0, band=(-0.1, 0.1)), Panel(c, lines))),
        Figure("bars", b, c, a, c, (Panel(b, lines, labels=(a, c)),)),
    )
    rows = (
        (a, 3, 0.123456789, estimate(-0.2), formula, None),
        (other, -4, 1e-9, estimate(123.456, 9), "-1+1", "\t=1"),
    )
    table = Table("numbers", a, b, (c, "count", "p", "gap", formula, "last"), rows, frozenset({"gap"}), frozenset({"p"}))
    failed = episode(b, "prompt", error=c, error_kind="agent bug", traceback=f"{a}\n{b}\n{c}")
    return Page(
        title=a,
        answer=(a, b, c),
        sections=(Section(a, f"{a}\n\n{b}", (*figures, table)), Section(a, "")),
        warnings=(a, b),
        runs=(BrowsedRun(a, (episode(a, steps=steps, goal=b, task_type=c), failed)),),
        manifest={a: [b, {c: formula}]},
    )


class Read(HTMLParser):
    """A page as a browser takes it apart: elements with their attributes, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data
        elif self._inside[-1] == "script":
            self.scripts[-1] += data
        else:
            self.styles[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
