"""The section "Does the instrument measure?": control arms, whose outcome is known by construction, in the order that
the probes give them. Invariant: what is demanded follows from the construction of the arms alone, and was fixed before anything
was measured; an order counts as found, or as reversed, only where the interval of the difference leaves out 0.

A trace that spells its action (level `full`) makes a model that its trace leads; one that says what was found (`state`) less
so; shuffled and filler traces say nothing of the action, and without traces there is nothing to be led by. So the action must
follow a conflicting trace, and profit from the own one, in this order; and the prompt action must be best where it alone was
trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cotbench.agents.registry import spec_option
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Line, Panel, Section, Table
from cotbench.stats.estimates import Estimate
from cotbench.stats.trend import CheckpointSeries
from cotbench.study.data import sums_by_task
from cotbench.study.figures import interval_caption
from cotbench.study.scope import Scope
from cotbench.study.series import Value, final_level

Role = Literal["full", "state", "shuffled", "filler", "none"]
Quantity = Literal["following", "gap", "prompt alignment"]
Verdict = Literal["as constructed", "reversed", "cannot tell"]

_UNINFORMATIVE: tuple[Role, ...] = ("shuffled", "filler", "none")
_ORDER: tuple[Role, ...] = ("full", "state", *_UNINFORMATIVE)
_ROLE_TEXT = {
    "full": "traces spell the action",
    "state": "traces end before the choice",
    "shuffled": "traces of other states",
    "filler": "dots instead of traces",
    "none": "actions only",
}

_LED: tuple[tuple[Role, Role], ...] = (
    ("full", "state"),
    *(("full", one) for one in _UNINFORMATIVE),
    *(("state", one) for one in _UNINFORMATIVE),
)
_DEMANDS: tuple[tuple[Quantity, Role, Role], ...] = (
    *(("following", higher, lower) for higher, lower in _LED),
    *(("gap", higher, lower) for higher, lower in _LED),
    *(("prompt alignment", "none", lower) for lower in _ORDER if lower != "none"),
)
"""(quantity, role in which it must be higher, role in which it must be lower)."""

_PROBES: dict[Quantity, tuple[str, Value]] = {
    # The whole trace: only the whole of a `full` trace spells its action.
    "following": ("conflict", lambda row: row.outcome(len(row.truncations) - 1) == "followed"),
    "gap": ("alignment", lambda row: row.cot_match - row.prompt_match),
    "prompt alignment": ("alignment", lambda row: row.prompt_match),
}
_TITLES: dict[Quantity, str] = {
    "following": "Follows the whole trace of another state",
    "gap": "Gap: CoT minus prompt alignment",
    "prompt alignment": "Prompt alignment",
}


@dataclass(frozen=True, slots=True)
class InstrumentCheck:
    """One order that the construction of two arms demands, or the bound on the gap of an arm trained on actions only.

    Attributes:
        quantity: what is compared.
        higher, lower: names of the arms; no lower one: the quantity itself is demanded to stay below the study's margin.
        difference: higher minus lower at the end of the training, on the tasks at which both were measured; with no lower one
            the quantity itself.
        verdict: whether it came out so.
    """

    quantity: Quantity
    higher: str
    lower: str | None
    difference: Estimate
    verdict: Verdict


def control_roles(scope: Scope) -> dict[Role, str]:
    """Return the arm of each role: the first one with such traces whose loss counts every token as usual.

    Args:
        scope: one model in one environment.
    """
    found: dict[Role, str] = {}
    for name in scope.arms:
        arm = scope.arm(name)
        kind = "own" if arm.recipe.trace_control is None else arm.recipe.trace_control(arm.config)
        level = spec_option(scope.data.config.traces_of(name).teacher, "names") if kind == "own" else kind
        role = next((one for one in _ORDER if one == level), None)
        if role is not None and arm.unmasked and scope.same_elicitation(name, scope.main):
            found.setdefault(role, name)
    return {role: found[role] for role in _ORDER if role in found}


def instrument_checks(scope: Scope, split: str) -> list[InstrumentCheck]:
    """Return every demanded order of which both arms were measured, with the verdict.

    Args:
        scope: one model in one environment.
        split: where the arms are compared.
    """
    roles = control_roles(scope)
    found = []
    for quantity, higher, lower in _DEMANDS:
        if higher in roles and lower in roles:
            difference = _level(scope, quantity, split, roles[higher], roles[lower])
            if difference is not None:
                found.append(InstrumentCheck(quantity, roles[higher], roles[lower], difference, _verdict(difference)))
    gap = _level(scope, "gap", split, roles["none"]) if "none" in roles else None
    if gap is not None:
        found.append(InstrumentCheck("gap", roles["none"], None, gap, _bounded(gap, scope.data.config.margin)))
    return found


def instrument_section(scope: Scope) -> Section | None:
    """Return the section; None where a study has no control arms, or too few to be ordered."""
    roles, split = control_roles(scope), scope.headline
    checks = instrument_checks(scope, split)
    if not any(check.lower is not None for check in checks):
        return None
    figure, table = _figure(scope, roles, split), _table(scope, checks, split)
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in ("as constructed", "reversed")}
    total = sum(counts.values())
    text = (
        "For these arms the right result is known, because their traces were constructed. Where the traces spell the action, "
        "the model must follow them; where they do not contain it, it must act from the prompt; trained on actions only, its "
        f"prompt action must be the best. Of {len(checks)} expected orders, {counts['as constructed']} come out as "
        f"constructed, {counts['reversed']} are reversed, and {len(checks) - total} are undecided with so many tasks and seeds."
    )
    return Section("Do the probes measure what they should?", text, tuple(one for one in (figure, table) if one is not None))


def _verdict(difference: Estimate) -> Verdict:
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "as constructed" if difference.low > 0 else "reversed"


def _bounded(gap: Estimate, margin: float) -> Verdict:
    if gap.low is None or gap.high is None:
        return "cannot tell"
    return "as constructed" if gap.high < margin else "reversed" if gap.low > 0 else "cannot tell"


def _level(scope: Scope, quantity: Quantity, split: str, arm: str, minus: str | None = None) -> Estimate | None:
    """Return a quantity of an arm at the end of the training, or its difference from another arm's, seeds paired."""
    probe, value = _PROBES[quantity]
    measures = scope.data.measures(probe)
    if not measures:
        return None
    sides = [_sums(scope, one, split, measures[0], value) for one in (arm, *([] if minus is None else [minus]))]
    seeds = [seed for seed in sides[0] if all(seed in side for side in sides)]
    cells = [side[seed] for side in sides for seed in seeds]
    tasks = sorted(set.intersection(*map(set, cells))) if cells else []
    if not tasks:
        return None
    return final_level(*(_series([[side[seed][task] for task in tasks] for seed in seeds]) for side in sides)).estimate


def _sums(scope: Scope, arm: str, split: str, measure: int, value: Value) -> dict[int, dict[str, tuple[float, float]]]:
    """Return seed -> task -> sum and count at an arm's last checkpoint, for each seed that was measured."""
    data, cell = scope.data, scope.cell(arm, split)
    shares = data.shares(cell, measure)
    if not shares or shares[-1] == 0:
        return {}
    found = {seed: sums_by_task(data.rows(cell, measure, shares[-1], seed), value) for seed in data.config.seeds}
    return {seed: sums for seed, sums in found.items() if sums}


def _series(cells: list[list[tuple[float, float]]]) -> CheckpointSeries:
    totals, counts = ([[[one[place] for one in row]] for row in cells] for place in (0, 1))
    return CheckpointSeries(progress=(1.0,), totals=totals, counts=counts)


def _figure(scope: Scope, roles: dict[Role, str], split: str) -> Figure | None:
    panels, units = [], []
    for quantity, title in _TITLES.items():
        levels = [(arm, _level(scope, quantity, split, arm)) for arm in roles.values()]
        known = [(arm, level) for arm, level in levels if level is not None]
        if known:
            line = Line(title, tuple(map(float, range(len(known)))), tuple(level for _, level in known), _COLOURS[quantity])
            panels.append(Panel(title, (line,), 0.0 if quantity == "gap" else None, labels=tuple(arm for arm, _ in known)))
            units += [level.n for _, level in known]
    if not panels:
        return None
    named = "; ".join(f"{arm}: {_ROLE_TEXT[role]}" for role, arm in roles.items())
    about = f"At the end of the training, on {split}. From left to right as construction orders them ({named})."
    caption = f"{about} {interval_caption(scope.data, units, 'Whiskers', dots=False)}"
    return Figure(scope.slug("instrument"), "Arms with a known result", caption, "arm", "share of states", tuple(panels))


_COLOURS: dict[Quantity, Any] = {"following": "neutral", "gap": "gap", "prompt alignment": "prompt"}


def _table(scope: Scope, checks: list[InstrumentCheck], split: str) -> Table:
    rows: list[tuple[TableCell, ...]] = []
    for check in checks:
        below = f"{scope.data.config.margin:g}" if check.lower is None else check.lower
        rows.append(
            (check.quantity, f"{check.higher} {'<' if check.lower is None else '>'} {below}", check.difference, check.verdict)
        )
    caption = (
        f"On {split}, at the end of the training: the order expected by construction, and the difference that was measured "
        "(where the gap has to stay below a bound, the gap). Reversed: the interval lies on the other side of 0. "
        + interval_caption(scope.data, [check.difference.n for check in checks], "Intervals", dots=False)
    )
    columns = ("quantity", "expected", "difference", "result")
    return Table(scope.slug("instrument_orders"), "Expected orders", caption, columns, tuple(rows), frozenset(("difference",)))
