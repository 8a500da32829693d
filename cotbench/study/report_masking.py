"""The section on mask fraction and mask selection. Invariant: that of `report_training`; it exists only where the arms of a
study differ in their mask fraction or selection.
"""

from __future__ import annotations

from cotbench.paper import SOURCE, paper_masked_success
from cotbench.prompting.elicitation import Mode
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Line, Panel, Section, Table
from cotbench.stats.estimates import Estimate
from cotbench.study.figures import interval_caption
from cotbench.study.measures import alignment_levels
from cotbench.study.scope import Scope
from cotbench.study.series import run_series, success, success_levels


def masking_section(scope: Scope) -> Section | None:
    """Return alignment and success at the end of the training by mask fraction."""
    masks = {arm: scope.arm(arm).masking for arm in scope.arms}
    kinds = {
        arm: (masking.select, masking.fraction)
        for arm, masking in masks.items()
        if masking is not None and (masking.fraction or masking.usual)  # Actions that weigh more are no mask of fraction 0.
    }
    if len({kind for kind in kinds.values() if kind[1] > 0}) < 2:
        return None
    figure = _figure(scope, kinds)
    table = _table(scope, kinds)
    items = [item for item in (figure, table) if item is not None]
    if not items:
        return None
    text = (
        "The arms differ in the share of examples whose action tokens are left out of the loss, and in how these are selected. "
        "An arm without a mask is at 0 for each way to select."
    )
    return Section("How much is masked, and which", text, tuple(items))


def _end(scope: Scope, arm: str, split: str, mode: Mode) -> Estimate | None:
    found = alignment_levels(scope, scope.cell(arm, split), mode)
    return None if found is None or found.shares[-1] == 0 else found.estimates[-1]


def _figure(scope: Scope, kinds: dict[str, tuple[str, float]]) -> Figure | None:
    panels, units = [], []
    selects = list(dict.fromkeys(select for select, fraction in kinds.values() if fraction > 0))
    for split in scope.splits:
        lines = []
        for select in selects:
            points = sorted((kind[1], arm) for arm, kind in kinds.items() if kind[0] == select or kind[1] == 0)
            found = [(fraction, estimate) for fraction, arm in points if (estimate := _end(scope, arm, split, "cot"))]
            if found:
                lines.append(Line(select, tuple(one[0] for one in found), tuple(one[1] for one in found), "cot"))
                units += [one[1].n for one in found]
        if lines:
            panels.append(Panel(split, tuple(lines)))
    if not panels:
        return None
    about = "CoT alignment with the reference action at the end of the training, by how the masked examples are chosen."
    caption = f"{about} {interval_caption(scope.data, units, dots=False, over='both')}"
    return Figure(scope.slug("masks"), "By mask fraction", caption, "mask fraction", "share of states", tuple(panels))


def _table(scope: Scope, kinds: dict[str, tuple[str, float]]) -> Table | None:
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    for arm, (select, fraction) in sorted(kinds.items(), key=lambda item: (item[1][1], item[1][0])):
        for split in scope.splits:
            alignment = _end(scope, arm, split, "cot")
            series = run_series(scope.data, scope.cell(arm, split), success("cot"))
            played = None if series is None or series.progress[-1] == 0 else success_levels(series)[-1]
            if alignment is None and played is None:
                continue
            units += [one.n for one in (alignment, played) if one is not None]
            reported = paper_masked_success(fraction, scope.paper_env) if split == "ood" and select == "random" else None
            rows.append((arm, f"{fraction:g}", select if fraction else "-", split, alignment, played, reported))
    if not rows:
        return None
    columns: tuple[str, ...] = ("arm", "masked", "selection", "split", "CoT alignment", "CoT success", "paper: success")
    paper_columns = frozenset(columns[6:])
    if all(row[6] is None for row in rows):
        columns, rows, paper_columns = columns[:6], [row[:6] for row in rows], frozenset()
    caption = f"At the end of the training. {interval_caption(scope.data, units, 'Intervals', dots=False, over='both')}"
    caption += f" The last column is what the paper reports out of domain ({SOURCE})." if paper_columns else ""
    return Table(scope.slug("masks_table"), "By mask fraction", caption, columns, tuple(rows), frozenset(), paper_columns)
