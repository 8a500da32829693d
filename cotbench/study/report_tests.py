"""The section on the tests of a study: what was compared, with which p-values, and what the intervals cannot say. Invariant: a
verdict anywhere on the page is that of a test in this table.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.prompting.elicitation import MODES, Mode
from cotbench.report.page import Cell, Section, Table
from cotbench.stats.equivalence import Equivalence
from cotbench.stats.multiple_testing import ALPHA
from cotbench.study.comparisons import Comparison, finding_of
from cotbench.study.family import family_of
from cotbench.study.figures import interval_caption
from cotbench.study.format_gate import NAMES
from cotbench.study.measures import start_of
from cotbench.study.scope import Scope
from cotbench.study.stage import Stage, StageOutput, TrainRequest


def format_p(test: Comparison | None, adjusted: bool = True) -> str:
    """Return a p-value as text, such as `0.012` or `<0.001`; with a star where it is one of the study's claims.

    Args:
        test: None where nothing was measured.
        adjusted: Holm's, else the plain one.
    """
    p = None if test is None else test.p_holm if adjusted else test.p
    if test is None or p is None:
        return "-"
    return ("<0.001" if p < 0.001 else f"{p:.3f}") + ("*" if adjusted and test.claim else "")


def estimate_cells(tests: Sequence[Comparison | None]) -> list[Cell]:
    """Return two cells for each test, its estimate and its adjusted p-value.

    Args:
        tests: None where nothing was measured.
    """
    return [cell for one in tests for cell in (None if one is None else one.estimate, format_p(one))]


def gap_verdict(flat: Equivalence, test: Comparison | None) -> str:
    """Return what is said of a gap: "flat", "rises", "falls", "not flat (uncorrected)" or "undecided".

    Not flat, uncorrected: a checkpoint differs from the first one, by tests that are corrected over the checkpoints alone.

    Args:
        flat: the test of all checkpoints.
        test: the gap's change from the first checkpoint to the last.
    """
    found = finding_of(test, flat)
    return "not flat (uncorrected)" if found == "not flat" else found


def format_notes(scope: Scope) -> str:
    """Return where series begin later than they were measured, as sentences; empty where all of them are whole."""
    found: dict[str, list[str]] = {}
    wanted: list[Sequence[Mode]] = [(mode,) for mode in MODES]
    for arm in scope.arms:
        for split in scope.splits:
            for modes in wanted:
                start = start_of(scope, scope.cell(arm, split), modes)
                sentence = "" if start is None else start.sentence()
                if start is not None and sentence:
                    named = "" if start.begins is None else f"{NAMES[modes[0]]} "
                    found.setdefault(named + sentence, []).append(f"{arm} on {split}")
    every = len(scope.arms) * len(scope.splits)
    parts = []
    for sentence, places in found.items():
        where = "All arms and splits" if len(places) == every else ", ".join(places)
        parts.append(f"{where}: {sentence}.")
    return "".join(f"\n\n{part}" for part in parts)


def seeds_sentence(scope: Scope) -> str:
    """Return what the seeds of a study share and what varies between them, from its trainings.

    Arms that begin from another arm's end, or learn from pairs that were sampled there, are named apart.
    """
    config = scope.data.config
    trainings = [
        stage
        for stage in scope.data.plan.of_kind("train")
        if (stage.place.env, stage.place.model) == (scope.env, scope.model) and isinstance(stage.request, TrainRequest)
    ]
    if not trainings:
        return ""
    if len(config.seeds) == 1:
        return "With one seed the tests are over tasks, and decide no claim."
    several = {"data": "set of traces", "model": "base"}
    shared = [name for option, name in several.items() if any(_from_outside(scope, stage, option) for stage in trainings)]
    same = f"All seeds of an arm share one {' and one '.join(shared)}. " if shared else ""
    own = "".join(f"{one}: in these arms a seed has its own start. " for one in scope.starts_clauses)
    return (
        f"{same}{own}The {len(config.seeds)} seeds differ in what a training draws at random (order, masks): intervals over "
        "tasks and seeds hold for another such training, not for another base or other traces."
    )


def _from_outside(scope: Scope, stage: Stage, option: str) -> bool:
    """Return whether a training's option has a value that comes from no training of the study: then all seeds have the same."""
    value = stage.request.options.get(option) if isinstance(stage.request, TrainRequest) else None
    values = value if isinstance(value, tuple | list) else (value,)
    kinds = {scope.data.plan.named(one.stage).kind for one in values if isinstance(one, StageOutput)}
    return value is not None and not kinds & {"train", "pairs"}


def tests_section(scope: Scope) -> Section | None:
    """Return the section on the study's tests: each comparison with its interval, p-values and what it could have seen."""
    family = family_of(scope.data)
    own = [one for one in family.comparisons if (one.env, one.model) == (scope.env, scope.model)]
    if not own:
        return None
    tables = [
        _table(scope, [one for one in own if one.claim], "tests_claims", "The study's claims"),
        _table(scope, [one for one in own if not one.claim], "tests_other", "All other tests"),
    ]
    tested = [sum(one.p is not None for one in some) for some in (family.claims, family.comparisons)]
    text = (
        f"{tested[0]} tests are the study's claims, fixed in advance by its configuration; the {tested[1] - tested[0]} others "
        f"are a second family. In each family the family-wise error rate is controlled at {ALPHA:.0%} (Holm). Detectable: the "
        "true difference that would be significant before correction with a power of 80 %, given the standard error found; on "
        f"smaller differences the study is inconclusive.\n\n{seeds_sentence(scope)}"
    )
    return Section("The tests", text.strip(), tuple(table for table in tables if table is not None))


def _table(scope: Scope, tests: Sequence[Comparison], name: str, title: str) -> Table | None:
    if not tests:
        return None
    rows: list[tuple[Cell, ...]] = []
    for one in tests:
        what = "over the training" if one.against is None else f"minus {one.against}"
        seen = "-" if one.detectable is None else f"{one.detectable:.2f}"
        p, adjusted = format_p(one, adjusted=False), format_p(one).rstrip("*")
        rows.append((one.quantity, one.arm, what, one.split, one.seeds, one.estimate, p, adjusted, seen, one.note))
    first = ("quantity", "arm", "compared", "split", "seeds")
    columns: tuple[str, ...] = (*first, "difference", "p", "p (Holm)", "detectable", "note")
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    units = [one.estimate.n for one in tests if one.estimate is not None] or [0]
    caption = (
        "Over the training: last checkpoint minus the first that keeps the format; between arms: at the end of the training. "
        "p-values are over what the intervals are over; of two successes with one seed p is McNemar's. "
        + interval_caption(scope.data, units, "Differences", dots=False, over="both")
    )
    return Table(scope.slug(name), title, caption, columns, tuple(rows), frozenset(("difference",)))
