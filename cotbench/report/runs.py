"""The page of plain runs: success of the modes, revisions, and their benefit. Invariant: every number is from the runs'
summaries or their judges' results, and runs with different elicitations are not put on one page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cotbench.errors import UsageError
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.report import run_sections
from cotbench.report.cells import estimate_text
from cotbench.report.page import BrowsedRun, Card, Page
from cotbench.report.run_sections import LABELS
from cotbench.runs.results import Run
from cotbench.runs.suite import summarize_suite
from cotbench.runs.summary import Summary
from cotbench.runs.tables import footnotes
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import ALPHA, holm


def page_of_runs(runs: Sequence[Run]) -> Page:
    """Return the page of one or several runs.

    Args:
        runs: the runs; those of a suite one by one.

    Raises:
        UsageError: no run, or two that were elicited differently.
    """
    if not runs:
        raise UsageError("there is no run to report: name a run folder, as in cotbench report runs/RUN")
    check_elicitation(runs)
    labels = _labels(runs)
    named = dict(zip(labels, runs, strict=True))
    gaps = {label: run.summary.gap for label, run in named.items() if run.summary.gap is not None}
    sections = [run_sections.success(named, holm({label: gap.p for label, gap in gaps.items()}))]
    if gaps:
        sections.append(run_sections.changes(named))
    sections += [
        *run_sections.task_types(named),
        *run_sections.judges(named),
        run_sections.costs(named),
        run_sections.how_measured(runs),
    ]
    return Page(
        title=_title(runs),
        answer=_answer(named),
        sections=tuple(sections),
        warnings=tuple(_warnings(named)),
        runs=tuple(BrowsedRun(label, run.records) for label, run in named.items()),
        manifest={label: run.manifest.model_dump(mode="json", exclude={"task_list"}) for label, run in named.items()},
        cards=_cards(runs[0].summary) if len(runs) == 1 else (),
    )


def _cards(summary: Summary) -> tuple[Card, ...]:
    """Return the number cards of one run."""
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    where = f"{summary.env} {summary.split}"
    found = (
        ("Gap in success", None if gap is None else gap.success, f"CoT minus prompt, on the same tasks; {where}", True),
        (
            "Consistency",
            None if same is None else same.consistency,
            f"share of states at which prompt action and CoT action are the same; {where}",
            False,
        ),
        (
            "Net benefit of revisions",
            None if revisions is None else revisions.net,
            f"helped minus hurt, per state at which the expert's action is known; {where}",
            True,
        ),
    )
    return tuple(
        Card(title, estimate, about, signed)
        for title, estimate, about, signed in found
        if estimate is not None and estimate.mean is not None
    )


def check_elicitation(runs: Sequence[Run]) -> None:
    """Refuse runs with different elicitations.

    On one environment that is the fingerprint; between environments, whose defaults differ, the options other than the default.

    Args:
        runs: the runs of a page.

    Raises:
        UsageError: names two runs.
    """
    for run in runs[1:]:
        same = next(other for other in runs if other.summary.env == run.summary.env)
        if same.summary.elicitation != run.summary.elicitation:
            raise _mixed(same, run)
        if _chosen(runs[0]) != _chosen(run):
            raise _mixed(runs[0], run)


def _mixed(one: Run, two: Run) -> UsageError:
    return UsageError(
        f"{one.path} was elicited as {one.summary.elicitation} and {two.path} as {two.summary.elicitation}: their numbers do "
        "not compare, report them apart"
    )


def _chosen(run: Run) -> dict[str, Any]:
    """Return the options of the elicitation that differ from the environment's defaults."""
    own = dict(Elicitation.for_env(run.summary.env))
    return {name: value for name, value in run.manifest.config.elicitation if value != own[name]}


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return a label for each run: as short as possible, none twice."""
    parts = [
        (run.summary.agent, f"{run.summary.env} {run.summary.scheme}/{run.summary.split}", f"seed {run.summary.seed}")
        for run in runs
    ]
    differ = [len({each[place] for each in parts}) > 1 for place in range(3)]
    differing = [place for place in range(3) if differ[place]] or [1]
    labels = [", ".join(each[place] for place in differing) for each in parts]
    twice = {label for label in labels if labels.count(label) > 1}
    labels = [f"{label}, {run.path.name}" if label in twice else label for label, run in zip(labels, runs, strict=True)]
    return [f"{label} ({place + 1})" if labels.count(label) > 1 else label for place, label in enumerate(labels)]


def _title(runs: Sequence[Run]) -> str:
    agents = list(dict.fromkeys(run.summary.agent for run in runs))
    places = list(dict.fromkeys(f"{run.summary.env} {run.summary.scheme}/{run.summary.split}" for run in runs))
    agent = agents[0] if len(agents) == 1 else f"{len(agents)} agents"
    return f"{agent} on {', '.join(places) if len(places) <= 3 else f'{len(places)} splits'}"


def _answer(named: dict[str, Run]) -> tuple[str, ...]:
    """Return the answer in sentences."""
    if len(named) == 1:
        return _answer_of_one(next(iter(named.values())))
    summaries = {label: run.summary for label, run in named.items()}
    envs = {summary.env for summary in summaries.values()}
    agents = {summary.agent for summary in summaries.values()}
    is_suite = len(agents) == 1 and len(envs) == len(named)
    sentences = [_answer_of_suite(list(summaries.values())) if is_suite else _spread_of_success(summaries)]
    gaps = {label: summary.gap for label, summary in summaries.items() if summary.gap is not None}
    if gaps:
        clear = [label for label, test in holm({label: gap.p for label, gap in gaps.items()}).items() if test.rejected]
        up = sum((gaps[label].success.mean or 0) > 0 for label in clear)
        sentences.append(
            f"Of {len(gaps)} runs, reasoning first raises success in {up}, lowers it in {len(clear) - up}, and makes no "
            f"difference that can be shown in {len(gaps) - len(clear)} ({_test_of(*summaries.values())}, Holm-adjusted, 5 %)."
        )
    same = {label: summary.consistency.consistency for label, summary in summaries.items() if summary.consistency}
    if spread := _spread(same):
        (low, first), (high, last) = spread
        shares = f"{low:.0%} ({first}) to {high:.0%} ({last})" if low < high else f"{low:.0%}"
        sentences.append(f"Prompt action and CoT action are the same at {shares} of the states.")
    return tuple(filter(None, sentences))


def _answer_of_suite(summaries: Sequence[Summary]) -> str:
    suite = summarize_suite(summaries)
    reached = " and ".join(f"{estimate_text(suite.success[mode])} by {LABELS[mode]}s" for mode in suite.success)
    gap = f"; the gap is {estimate_text(suite.gap, signed=True)}" if suite.gap is not None else ""
    return f"Over {len(summaries)} environments, {summaries[0].agent} succeeds on average at {reached}{gap}." if reached else ""


def _spread_of_success(summaries: Mapping[str, Summary]) -> str:
    ranges = []
    for mode in MODES:
        rates = {label: summary.modes[mode].success for label, summary in summaries.items() if mode in summary.modes}
        if spread := _spread(rates):
            (low, first), (high, last) = spread
            ranges.append(f"from {low:.2f} ({first}) to {high:.2f} ({last}) by {LABELS[mode]}s")
    return f"Success goes {', and '.join(ranges)}." if ranges else ""


def _spread(estimates: Mapping[str, Estimate]) -> tuple[tuple[float, str], tuple[float, str]] | None:
    """Return the lowest and the highest mean, each with its label."""
    known = [(estimate.mean, label) for label, estimate in estimates.items() if estimate.mean is not None]
    return (min(known), max(known)) if known else None


def _answer_of_one(run: Run) -> tuple[str, ...]:
    summary = run.summary
    reached = " and ".join(f"{estimate_text(mode.success)} by {LABELS[name]}s" for name, mode in summary.modes.items())
    tasks = max((mode.n for mode in summary.modes.values()), default=0)
    if tasks == 0:
        return (f"No episode of {summary.agent} on {summary.env} was played to its end yet.",)
    sentences = [
        f"{summary.agent} succeeds at {reached}, on {tasks} task{'s' * (tasks != 1)} of {summary.env} {summary.split}."
    ]
    gap, same, revisions = summary.gap, summary.consistency, summary.revisions
    if gap is not None and gap.p is not None:
        if gap.p <= ALPHA and gap.success.mean:
            what = f"Reasoning first {'raises' if gap.success.mean > 0 else 'lowers'} success"
        else:
            what = "No difference between the modes is shown" if gap.n > 1 else "One task cannot show a difference"
        sentences.append(
            f"{what}: the gap is {estimate_text(gap.success, signed=True)}, {_test_of(summary)} p = {gap.p:.2g} "
            f"({gap.cot_only} won by CoT alone, {gap.prompt_only} by prompt alone)."
        )
    if same is not None and same.consistency.mean is not None:
        text = f"Both actions are the same at {estimate_text(same.consistency)} of {same.states} states"
        if revisions is not None:
            text += (
                f"; where the expert's action is known, at {revisions.states} of them, {revisions.helped} revisions helped and "
                f"{revisions.hurt} hurt, {estimate_text(revisions.net, signed=True)} net a state"
            )
        sentences.append(f"{text}.")
    return tuple(sentences)


def _test_of(*summaries: Summary) -> str:
    """Return the test of the gap in some runs: of several samples of a task it exchanges the modes within each task."""
    names = dict.fromkeys("exact McNemar" if summary.samples == 1 else "exchange test" for summary in summaries)
    return " or ".join(names)


def _warnings(named: dict[str, Run]) -> list[str]:
    """Return the caveats of the page."""
    lines = []
    for label, run in named.items():
        before = f"{label}: " if len(named) > 1 else ""
        summary = run.summary
        expected = summary.tasks * summary.samples * (2 if run.manifest.config.mode == "both" else 1)
        if len(run.records) < expected:
            lines.append(f"{before}UNFINISHED: {len(run.records)} of {expected} episodes are played so far")
        lines += [f"{before}{line}" for line in footnotes(summary)]
        if max((mode.n for mode in summary.modes.values()), default=0) == 1:
            lines.append(
                f"{before}one task was played: there is no interval over tasks, and a rate from one task is hardly informative"
            )
        elif summary.tasks < summary.split_tasks:
            lines.append(f"{before}{summary.tasks} of the {summary.split_tasks} tasks of the split were played")
        if summary.modes and summary.gap is None:
            lines.append(f"{before}one mode was played, so there is no gap and no consistency")
    lists: dict[str, set[str]] = {}
    for run in named.values():
        lists.setdefault(f"{run.summary.env} {run.summary.split}", set()).add(run.manifest.task_list_sha256)
    lines += [f"the runs on {place} did not play the same tasks" for place, some in lists.items() if len(some) > 1]
    if len(lists) < len(named):
        lines.append("the runs are set side by side here, not paired task by task; cotbench compare RUN RUN does that")
    return lines
