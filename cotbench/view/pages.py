"""The pages as HTML. Invariant: pure, from data to HTML; what a model, an environment or a file name says is text, never
markup; no script and no style stands in a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.report.cells import RenderedTable, estimate_text, render_table
from cotbench.report.html import page_environment
from cotbench.runs.comparison import Comparison
from cotbench.runs.manifest import Manifest
from cotbench.runs.run_status import RunStatus
from cotbench.runs.summary import Summary
from cotbench.runs.tables import NAMES
from cotbench.stats.estimates import Estimate
from cotbench.view.assets import assets
from cotbench.view.followed_study import StudyStatus
from cotbench.view.library import Listing
from cotbench.view.numbers import comparison_table, facts, remarks, run_table
from cotbench.view.query import choices, chosen_runs
from cotbench.view.run_page import PageEpisodes

_TASKS = 200
"""Tasks won by one run alone that are listed."""


def run_address(folder: str) -> str:
    """Return the address of a run's page."""
    return f"/run?{urlencode({'folder': folder})}"


def study_address(folder: str) -> str:
    """Return the address of a study's page."""
    return f"/study?{urlencode({'folder': folder})}"


def report_address(folder: str) -> str:
    """Return the address of the report of a study."""
    return "/report/" + ("" if folder == "." else quote(f"{folder}/")) + "index.html"


def step_address(folder: str, task: str, mode: str) -> str:
    """Return the address of an episode in a run's page; `browser.js` reads what stands after the `#`."""
    return f"{run_address(folder)}#{urlencode({'run': folder, 'task': task, 'mode': mode, 'step': '0'}, quote_via=quote)}"


def list_page(root: str, listing: Listing, filters: Mapping[str, str]) -> str:
    """Render the page of all runs and studies.

    Args:
        root: the folder.
        listing: what is in it.
        filters: filter -> value.
    """
    runs = chosen_runs(listing.runs, filters)
    return _rendered(
        "list.html.jinja",
        title="Runs",
        root=root,
        listing=listing,
        runs=runs,
        choices=choices(listing.runs, filters),
        filtered=len(runs) < len(listing.runs),
        modes=[mode for mode in MODES if any(mode in run.success for run in runs)],
    )


def run_page(status: RunStatus, manifest: Manifest, summary: Summary, episodes: PageEpisodes) -> str:
    """Render the page of a run.

    Args:
        status: how far it is; its folder is relative to the root.
        manifest: of the run.
        summary: of its episodes so far.
        episodes: to step through.
    """
    from markupsafe import Markup

    return _rendered(
        "run.html.jinja",
        title=status.folder if status.folder != "." else "The run",
        run=status,
        summary=summary,
        numbers=render_table(run_table(summary)) if summary.modes else None,
        facts=facts(summary),
        of=episodes.of,
        content=episodes,
        episodes=Markup(episodes.json),  # noqa: S704  (escaped there)
        manifest=json.dumps(manifest.model_dump(mode="json", exclude={"task_list"}), indent=2, ensure_ascii=False),
    )


def live_page(status: RunStatus, summary: Summary, episodes: int) -> str:
    """Render what of a run's page changes while it runs.

    Args:
        status, summary: as for `run_page`.
        episodes: how many it has now.
    """
    return _rendered(
        "live.html.jinja",
        run=status,
        numbers=render_table(run_table(summary)) if summary.modes else None,
        facts=facts(summary),
        of=episodes,
    )


def study_page(study: StudyStatus, runs: Sequence[RunStatus], path: str) -> str:
    """Render the page of a study.

    Args:
        study: how far it is; its folder is relative to the root.
        runs: those in its folder.
        path: its folder, as it is typed on this machine.
    """
    modes = [mode for mode in MODES if any(mode in run.success for run in runs)]
    return _rendered("study.html.jinja", title=f"Study {study.name}", study=study, runs=runs, modes=modes, path=path)


def comparison_page(first: str, second: str, comparison: Comparison, *, anyway: bool) -> str:
    """Render the comparison of two runs.

    Args:
        first, second: their folders, relative to the root.
        comparison: of one environment.
        anyway: whether runs of different elicitations are compared.
    """
    (env,) = comparison.envs.values()
    alone = [
        (letter, NAMES[mode], mode, folder, tasks[:_TASKS], len(tasks))
        for mode, one in env.modes.items()
        for letter, folder, tasks in (("A", first, one.first_only), ("B", second, one.second_only))
        if tasks
    ]
    return _rendered(
        "compare.html.jinja",
        title="Two runs compared",
        first=first,
        second=second,
        env=env,
        table=_table(env, comparison),
        remarks=remarks(env),
        alone=alone,
        anyway=anyway,
    )


def _table(env: Any, comparison: Comparison) -> RenderedTable:
    return render_table(comparison_table(env, comparison))


def error_page(title: str, message: str, anyway: str = "") -> str:
    """Render the page of a refusal.

    Args:
        title: what kind it is.
        message: what is wrong and what to do.
        anyway: an address at which it is done nevertheless.
    """
    return _rendered("error.html.jinja", title=title, message=message, anyway=anyway)


def _rendered(template: str, **values: Any) -> str:
    text: str = _environment().get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode("utf-8")  # A lone half of a surrogate pair cannot be written.


def _rate(run: RunStatus, mode: Mode) -> tuple[str, str]:
    """Return a success rate and its interval as texts."""
    estimate: Estimate | None = run.success.get(mode)
    if estimate is None or estimate.mean is None:
        return "–", ""
    value, _, interval = estimate_text(estimate).partition(" ")
    return value, interval


@cache
def _environment() -> Any:
    found = page_environment("cotbench.view")
    found.globals |= {
        "asset": lambda name: f"/static/{assets()[name].filename}",
        "run_address": run_address,
        "study_address": study_address,
        "report_address": report_address,
        "step_address": step_address,
        "rate": _rate,
        "names": NAMES,
        "duration": duration,
    }
    return found


def duration(seconds: float) -> str:
    """Return a duration in seconds as text, such as `45 s`, `12 min`, `3.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
